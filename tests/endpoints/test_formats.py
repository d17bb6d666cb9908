"""How values are written: what somebody reads on every page, and hears from nobody when it is wrong."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf, nan

import pytest
from django.utils import timezone

from endpoints.templatetags import formats

NOON = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1023, "1,023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (102_600_000, "97.8 MiB"),
        (1024**2 - 1, "1 MiB"),
        (16 * 1024**3, "16 GiB"),
        (500 * 1024**3, "500 GiB"),
        (3 * 1024**4, "3 TiB"),
        (5000 * 1024**4, "5,000 TiB"),
    ],
)
def test_bytes_are_in_binary_units(value: int, text: str) -> None:
    assert formats.bytes_binary(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0004, "1 ms"),
        (0.84, "840 ms"),
        (0.9999, "1 s"),
        (4.25, "4.2 s"),
        (9.99, "10 s"),
        (14, "14 s"),
        (59.7, "1 m"),
        (134, "2 m 14 s"),
        (3600, "1 h"),
        (11_100, "3 h 5 m"),
        (187_200, "2 d 4 h"),
        (timedelta(minutes=2, seconds=14), "2 m 14 s"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float | timedelta, text: str) -> None:
    assert formats.duration(seconds) == text


def test_a_negative_duration_is_not_a_number_to_show() -> None:
    assert formats.duration(-1) == formats.ABSENT


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.4, "7.4 ms"), (847.2, "847 ms"), (1420, "1,420 ms"), (12_400, "12.4 s")],
)
def test_latency_goes_over_to_seconds_when_it_is_long(value: float, text: str) -> None:
    assert formats.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 %"), (0.31, "0.31 %"), (6.1, "6.1 %"), (72.4, "72 %"), (100, "100 %")]
)
def test_a_small_percentage_keeps_its_decimals(value: float, text: str) -> None:
    assert formats.percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (4.213, "4.21"), (45.62, "45.6"), (1_250_000, "1,250,000")])
def test_counts_have_their_thousands_apart(value: float, text: str) -> None:
    assert formats.quantity(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1234.56"), "₹1,234.56"),
        (Decimal("15.8"), "₹15.80"),
        (0, "₹0.00"),
        (Decimal("-42.005"), "-₹42.01"),
        (Decimal("2.675"), "₹2.68"),
        (1234567, "₹1,234,567.00"),
    ],
)
def test_money_has_its_sign_and_two_decimals(value: Decimal | int, text: str) -> None:
    assert formats.money(value) == text


def test_a_price_below_a_hundredth_is_not_rounded_away() -> None:
    assert formats.money(Decimal("0.001")) == "₹0.001"
    assert formats.money(Decimal("0.00025")) == "₹0.00025"


def test_another_currency_has_its_own_sign() -> None:
    assert formats.money(5, "USD") == "$5.00"
    assert formats.money(5, "CHF") == "CHF 5.00"


def test_a_rate_says_per_hour() -> None:
    assert formats.rate_per_hour(Decimal("15.8")) == "₹15.80/h"


NUMBERS = [
    formats.bytes_binary,
    formats.duration,
    formats.milliseconds,
    formats.percent,
    formats.quantity,
    formats.money,
    formats.rate_per_hour,
]


@pytest.mark.parametrize("write", [*NUMBERS, formats.relative, formats.absolute])
def test_what_was_not_measured_is_a_dash_and_never_zero(write) -> None:  # type: ignore[no-untyped-def]
    assert write(None) == formats.ABSENT


@pytest.mark.parametrize("value", [nan, inf])
@pytest.mark.parametrize("write", NUMBERS)
def test_no_page_ever_shows_nan(write, value: float) -> None:  # type: ignore[no-untyped-def]
    assert write(value).removesuffix("/h") == formats.ABSENT


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (0, "just now"),
        (12, "12 s ago"),
        (90, "1 m ago"),
        (3 * 3600 + 10, "3 h ago"),
        (50 * 3600, "2 d ago"),
        (-3 * 86_400, "in 3 d"),
    ],
)
def test_a_relative_time_is_in_its_largest_unit(ago: int, text: str) -> None:
    assert formats.distance(NOON - timedelta(seconds=ago), at=NOON) == text


def test_a_relative_time_names_the_moment_and_the_zone_on_hover() -> None:
    with timezone.override("Asia/Kolkata"):
        html = formats.relative(NOON)
    assert 'datetime="2026-11-25T12:00:00+00:00"' in html
    assert 'title="25 Nov 2026, 17:30:00 IST"' in html
    assert "data-relative" in html


def test_an_absolute_time_is_in_the_viewers_zone() -> None:
    with timezone.override("Asia/Kolkata"):
        assert ">25 Nov 2026, 17:30</time>" in formats.absolute(NOON)
