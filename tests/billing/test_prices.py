"""Prices on pages of every app."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.template import Context, Template
from django.test import RequestFactory
from pytest_django import DjangoAssertNumQueries

from billing import estimates
from billing.models import Price, Unit
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _prices() -> None:
    Price.objects.create(unit=Unit.INSTANCE_HOUR, instance_type=make.instance_type(), amount=Decimal("3.2"))
    Price.objects.create(unit=Unit.REQUEST, amount=Decimal("0.001"))


def rendered(text: str, **values: object) -> str:
    context = Context({"request": RequestFactory().get("/"), **values})
    return Template("{% load prices %}" + text).render(context)


def test_a_page_full_of_prices_reads_them_once(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        text = rendered(
            "{% for n in many %}{% hourly_price 'c6i.large' as p %}{{ p }};{% endfor %}{% request_price %}",
            many=range(20),
        )
    assert text.count("3.2") == 20
    assert text.endswith("0.0010")


def test_a_type_without_a_price_has_none_rather_than_zero() -> None:
    text = rendered(
        "{% hourly_price 'p9.huge' as p %}{{ p }} {% month_estimate instance_type='p9.huge' as e %}{{ e }}"
    )
    assert text == "None None"


def test_a_month_is_the_specifications_sum() -> None:
    month = estimates.month(instances=2, per_hour=Decimal("15.8"), requests=100_000, per_request=Decimal("0.001"))
    assert (month.compute, month.requests, month.total) == (
        Decimal("23068.0"),
        Decimal("100.000"),
        Decimal("23168"),
    )


def test_an_hourly_estimate_takes_nothing_for_requests_and_bad_numbers_count_as_none() -> None:
    text = rendered(
        "{% month_estimate instance_type='c6i.large' instances='two' requests='9' billing_model='hourly' as e %}"
        "{{ e.total }}|"
        "{% month_estimate instance_type='c6i.large' requests='1,000' instances=0 "
        "billing_model='per_request' as e %}"
        "{{ e.requests }}"
    )
    assert [Decimal(part) for part in text.split("|")] == [0, 1]


def test_a_call_has_one_kind_of_price() -> None:
    endpoint = make.endpoint(ready=1)
    show = "{% call_prices endpoint as c %}{{ c.request }} {{ c.hour }}"
    assert rendered(show, endpoint=endpoint) == "None 3.2000"
    endpoint.billing_model = "per_request"
    assert rendered(show, endpoint=endpoint) == "0.0010 None"
