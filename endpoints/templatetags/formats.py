"""How numbers, money, spans and moments are written. `static/js/format.js` writes the same, for live values.

Nothing measured is never written as 0: `None` becomes a dash.
"""

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from math import isfinite

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

ABSENT = "—"
SYMBOLS = {"INR": "₹", "USD": "$", "EUR": "€", "GBP": "£"}
Number = int | float | Decimal


def _plain(value: Decimal | float, places: int) -> str:
    """At most `places` decimals, no trailing zeros, thousands apart."""
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@register.filter
def bytes_binary(value: Number | None) -> str:
    """Bytes in binary units with three figures: 512 B, 1.5 GiB, 97.9 MiB."""
    if value is None or not isfinite(value):
        return ABSENT
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1023.95 or unit == "TiB":
            break
        size /= 1024
    return f"{_plain(size, 0 if unit == 'B' or abs(size) >= 100 else 1)} {unit}"


@register.filter
def duration(value: Number | timedelta | None) -> str:
    """Seconds in the two largest units: 840 ms, 4.2 s, 2 m 14 s, 3 h 5 m, 2 d 4 h."""
    if value is None:
        return ABSENT
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not isfinite(seconds) or seconds < 0:
        return ABSENT
    if 0 < seconds < 0.9995:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{_plain(seconds, 1)} s"
    whole = round(seconds)
    for large, small, step, part in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= step:
            rest = whole % step // part
            return f"{whole // step} {large} {rest} {small}" if rest else f"{whole // step} {large}"
    return f"{whole} s"


@register.filter
def milliseconds(value: Number | None) -> str:
    """A latency in ms, in seconds from 10 s on: 7.4 ms, 847 ms, 12.4 s."""
    if value is None or not isfinite(value):
        return ABSENT
    if value >= 10_000:
        return f"{_plain(float(value) / 1000, 1)} s"
    return f"{_plain(float(value), 1 if value < 10 else 0)} ms"


@register.filter
def percent(value: Number | None) -> str:
    """A share that already counts to 100: 0.3 %, 72 %."""
    if value is None or not isfinite(value):
        return ABSENT
    size = abs(float(value))
    return f"{_plain(value, 2 if 0 < size < 1 else 1 if size < 10 else 0)} %"


@register.filter
def quantity(value: Number | None) -> str:
    """A count or a rate: 1,250,000 or 4.25; an unmeasured one is a dash."""
    if value is None or not isfinite(value):
        return ABSENT
    size = abs(float(value))
    return _plain(value, 2 if size < 10 else 1 if size < 100 else 0)


@register.filter
def money(value: Number | None, currency: str = "INR") -> str:
    """₹1,234.56. Amounts under a hundredth keep two figures (₹0.001), because a price per request is one."""
    if value is None or not isfinite(value):
        return ABSENT
    amount = Decimal(str(value))
    symbol = SYMBOLS.get(currency, f"{currency} ")
    sign, size = ("-" if amount < 0 else ""), abs(amount)
    if 0 < size < Decimal("0.01"):
        places = min(8, 1 - size.adjusted())
        return f"{sign}{symbol}{_plain(size, places)}"
    return f"{sign}{symbol}{size.quantize(Decimal('0.01'), ROUND_HALF_UP):,.2f}"


@register.filter
def rate_per_hour(value: Number | None, currency: str = "INR") -> str:
    return ABSENT if value is None else f"{money(value, currency)}/h"


def distance(then: datetime, *, at: datetime) -> str:
    """How far `then` lies from `at`, in its one largest unit: just now, 12 s ago, in 3 d."""
    seconds = round((at - then).total_seconds())
    span = abs(seconds)
    if span < 2:
        return "just now"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if span >= length:
            text = f"{span // length} {unit}"
            break
    return f"{text} ago" if seconds > 0 else f"in {text}"


def stamp(when: datetime) -> str:
    """25 Nov 2026, 09:53:12 UTC, in the viewer's zone with the zone named."""
    local = timezone.localtime(when)
    return f"{local.day} {local:%b %Y, %H:%M:%S %Z}"


@register.filter
def relative(when: datetime | None) -> SafeString | str:
    """A <time> that says "12 s ago", keeps itself true in the browser, and names the moment on hover."""
    if when is None:
        return ABSENT
    return format_html(
        '<time datetime="{}" data-relative title="{}">{}</time>',
        when.isoformat(),
        stamp(when),
        distance(when, at=timezone.now()),
    )


@register.filter
def absolute(when: datetime | None) -> SafeString | str:
    """A <time> with day and minute in the viewer's zone; seconds and zone on hover."""
    if when is None:
        return ABSENT
    local = timezone.localtime(when)
    return format_html(
        '<time datetime="{}" data-absolute title="{}">{}</time>',
        when.isoformat(),
        stamp(when),
        f"{local.day} {local:%b %Y, %H:%M}",
    )
