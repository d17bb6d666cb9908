"""A price times a quantity, for estimates on pages; what isn't known stays unknown."""

from decimal import Decimal
from typing import Any

from django import template

register = template.Library()


@register.filter
def times(price: Decimal | None, quantity: Any) -> Decimal | None:
    """`price` × a whole number that may come as typed; None without a price or a number."""
    text = str(quantity if quantity is not None else "").strip()
    if price is None or not text.isascii() or not text.isdigit() or len(text) > 15:
        return None
    return price * int(text)


@register.filter
def plus(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    return None if left is None else left + (right or 0)
