"""What endpoints cost, from the rows that are billing's evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import costs, periods
from billing.metering import Period
from billing.models import Price, Unit
from endpoints.models import Endpoint, Revision
from endpoints.models.deployment import InstanceState
from endpoints.spec import ScalingSpec
from monitoring.models import KeyTraffic
from tests import make

pytestmark = pytest.mark.django_db
AT = datetime(2026, 11, 25, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _prices() -> None:
    Price.objects.create(
        unit=Unit.INSTANCE_HOUR,
        instance_type=make.instance_type(),
        amount=Decimal("3.2"),
        valid_from=AT - 90 * 24 * HOUR,
    )
    Price.objects.create(unit=Unit.REQUEST, amount=Decimal("0.001"), valid_from=AT - 90 * 24 * HOUR)


def endpoint(billing_model: str = "hourly") -> Endpoint:
    make.region()
    project = make.project()
    wish = make.spec(scaling=ScalingSpec(billing_model=billing_model))
    return Endpoint.launch(project, wish, by=make.user("alice"))


def requests(of: Endpoint, count: int, quarter: datetime, source: str = "g1") -> None:
    KeyTraffic.objects.create(
        endpoint=of,
        revision=of.revisions.get(),
        status_class="2xx",
        quarter=quarter,
        requests=count,
        source=source,
    )


def test_a_month_is_the_billing_time_zones_month() -> None:
    late = datetime(2026, 11, 30, 18, 29, tzinfo=UTC)  # 23:59 in India
    assert periods.month(late).end == datetime(2026, 11, 30, 18, 30, tzinfo=UTC)
    assert periods.month(late + timedelta(minutes=1)).start == datetime(2026, 11, 30, 18, 30, tzinfo=UTC)


def test_a_year_ends_where_the_next_begins() -> None:
    december = periods.month(datetime(2026, 12, 31, 12, tzinfo=UTC))
    assert december.end == datetime(2026, 12, 31, 18, 30, tzinfo=UTC)
    assert december.hours == 31 * 24


def test_an_hourly_endpoint_pays_no_price_per_request() -> None:
    one = endpoint()
    make.instance(one, at=AT - 2 * HOUR)
    requests(one, 5000, AT - HOUR)
    cost = costs.cost_of(one, Period(AT - 4 * HOUR, AT))
    assert (cost.compute, cost.requests, cost.total) == (Decimal("6.4"), Decimal(0), Decimal("6.4"))


def test_a_per_request_endpoint_pays_requests_and_active_hours() -> None:
    one = endpoint("per_request")
    make.instance(one, at=AT - HOUR)
    requests(one, 1000, AT - HOUR)
    requests(one, 500, AT - HOUR, source="g2")
    cost = costs.cost_of(one, Period(AT - 4 * HOUR, AT))
    assert (cost.compute, cost.requests) == (Decimal("3.2"), Decimal("1.5"))
    assert cost.total == Decimal("4.7")


def test_requests_keep_the_way_of_paying_of_the_revision_that_answered_them() -> None:
    one = endpoint("per_request")
    requests(one, 1000, AT - HOUR)
    Endpoint.objects.filter(pk=one.pk).update(billing_model="hourly")
    assert costs.cost_of(one, Period(AT - 4 * HOUR, AT)).requests == 1


def test_an_instance_is_paid_at_the_price_of_the_type_its_revision_chose() -> None:
    one = endpoint()
    bigger = make.instance_type("c6i.xlarge", vcpus=4)
    Price.objects.create(
        unit=Unit.INSTANCE_HOUR, instance_type=bigger, amount=Decimal("6.4"), valid_from=AT - 9 * HOUR
    )
    second = Revision.objects.create(endpoint=one, number=2, spec={}, instance_type=bigger)
    make.instance(one, second, at=AT - HOUR)
    assert costs.cost_of(one, Period(AT - HOUR, AT)).compute == Decimal("6.4")


def test_only_what_is_billed_now_makes_the_hourly_rate() -> None:
    one = endpoint()
    make.instance(one, at=AT - HOUR)
    make.instance(one, at=AT - HOUR, state=InstanceState.DRAINING)
    make.instance(one, at=AT, state=InstanceState.LOADING, ready_at=None)
    make.instance(one, at=AT - HOUR, state=InstanceState.FAILED, ended_at=AT)
    assert costs.hourly_now(one, at=AT) == Decimal("6.4")


def test_the_projection_adds_the_present_rate_for_the_rest_of_the_month() -> None:
    one = endpoint()
    make.instance(one, at=AT - 10 * HOUR)
    left = periods.month(AT).end - AT
    hours_left = Decimal(left // timedelta(minutes=1)) / 60
    bill = costs.bill_of(one, at=AT)
    assert bill.so_far.total == 32
    assert bill.projected == 32 + Decimal("3.2") * hours_left == costs.projected_month(one, at=AT)


def test_a_stopped_endpoint_is_projected_at_what_it_cost_so_far() -> None:
    one = endpoint()
    make.instance(one, at=AT - 2 * HOUR, state=InstanceState.STOPPED, ended_at=AT - HOUR)
    bill = costs.bill_of(one, at=AT)
    assert (bill.per_hour, bill.projected) == (Decimal(0), Decimal("3.2"))


def test_last_months_hours_are_not_this_months() -> None:
    one = endpoint()
    start = periods.month(AT).start
    make.instance(one, at=start - 5 * HOUR, state=InstanceState.STOPPED, ended_at=start + HOUR)
    assert costs.bill_of(one, at=AT).so_far.total == Decimal("3.2")


def test_an_unpriced_type_is_said_to_be_so() -> None:
    one = endpoint()
    Price.objects.all().delete()
    make.instance(one, at=AT - HOUR)
    cost = costs.bill_of(one, at=AT).so_far
    assert (cost.total, cost.unpriced) == (Decimal(0), True)


@pytest.mark.parametrize("many", [1, 12])
def test_bills_take_the_same_queries_however_many_endpoints(
    many: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    project = make.project()
    ones = [make.endpoint(project, ready=2, at=AT - HOUR) for _ in range(many)]
    with django_assert_num_queries(4):
        found = costs.bills([one.pk for one in ones], at=AT)
    assert {bill.so_far.total for bill in found.values()} == {Decimal("6.4")}
