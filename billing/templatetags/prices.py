"""Prices for pages of every app. All are read once a request, however many a page shows.

{% hourly_price type as price %}     what an instance type (or its slug) costs an hour now; None without a price
{% monthly_price type as price %}    the same for 730 hours
{% request_price as price %}         what a request costs where requests are paid
{% month_estimate instance_type=type instances=2 requests=100000 billing_model="per_request" as estimate %}
                                     estimate.compute, .requests, .total, .per_hour; None without a price
{% call_prices endpoint as call %}   call.request or call.hour: what the Try it box shows a call's cost with
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import template
from django.template import Context
from django.utils import timezone

from billing import estimates
from billing.estimates import Estimate
from billing.models import Price, Unit
from endpoints.models import Endpoint, InstanceType
from endpoints.spec import BillingModel

register = template.Library()

Prices = Mapping[str, Decimal]
"""By instance type's slug; under "" the price of a request."""


def current() -> Prices:
    """Every price that holds now, in one query."""
    rows = Price.objects.at(timezone.now()).values_list("unit", "instance_type__slug", "amount")
    return {"" if unit == Unit.REQUEST else slug: amount for unit, slug, amount in rows}


def _prices(context: Context) -> Prices:
    request: Any = context.get("request") or getattr(context, "request", None)
    if request is None:
        return current()
    if not hasattr(request, "current_prices"):
        request.current_prices = current()
    found: Prices = request.current_prices
    return found


@register.simple_tag(takes_context=True)
def hourly_price(context: Context, instance_type: InstanceType | str | None) -> Decimal | None:
    return _prices(context).get(str(instance_type)) if instance_type else None


@register.simple_tag(takes_context=True)
def monthly_price(context: Context, instance_type: InstanceType | str | None) -> Decimal | None:
    price = hourly_price(context, instance_type)
    return None if price is None else price * estimates.HOURS_A_MONTH


@register.simple_tag(takes_context=True)
def request_price(context: Context) -> Decimal | None:
    return _prices(context).get("")


@register.simple_tag(takes_context=True)
def month_estimate(
    context: Context,
    *,
    instance_type: InstanceType | str | None,
    instances: int | str | None = 1,
    requests: int | str | None = 0,
    billing_model: str = BillingModel.HOURLY,
) -> Estimate | None:
    """Numbers may come as typed; what is no whole number counts as none."""
    price = hourly_price(context, instance_type)
    if price is None:
        return None
    per_request = request_price(context) if billing_model == BillingModel.PER_REQUEST else None
    return estimates.month(
        instances=_whole(instances),
        per_hour=price,
        requests=_whole(requests),
        per_request=per_request or Decimal(0),
    )


def _whole(value: int | str | None) -> int:
    text = str(value or "").strip().replace(",", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


@dataclass(frozen=True)
class CallPrices:
    """One of both: a call costs its price, or its share of the hour of one instance."""

    request: Decimal | None
    hour: Decimal | None
    label: str
    currency: str = "INR"


@register.simple_tag(takes_context=True)
def call_prices(context: Context, endpoint: Endpoint) -> CallPrices:
    if endpoint.billing_model == BillingModel.PER_REQUEST:
        return CallPrices(request_price(context), None, "Price per request; instance hours come on top")
    revision = endpoint.serving_revision or endpoint.revisions.select_related("instance_type").first()
    hour = hourly_price(context, revision.instance_type) if revision else None
    return CallPrices(None, hour, "Its share of one instance's time")
