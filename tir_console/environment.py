"""Reading settings from the environment: a wrong value is one clear line that says what to do."""

import os
from collections.abc import Callable
from typing import TypeVar
from zoneinfo import available_timezones

from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def _read(name: str, default: T, convert: Callable[[str], T], wanted: str) -> T:
    raw = os.environ.get(name)
    if raw is None:
        return default
    try:
        return convert(raw.strip())
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be {wanted}; it is {raw!r}.") from None


def text(name: str, default: str) -> str:
    return _read(name, default, str, "text")


def number(name: str, default: float) -> float:
    return _read(name, default, float, "a number")


def integer(name: str, default: int) -> int:
    return _read(name, default, int, "a whole number")


def words(name: str, default: list[str]) -> list[str]:
    return _read(name, default, lambda raw: [word.strip() for word in raw.split(",") if word.strip()], "a list")


def time_zone(name: str, default: str) -> str:
    def convert(raw: str) -> str:
        if raw not in available_timezones():
            raise ValueError(raw)
        return raw

    return _read(name, default, convert, "a time zone's name, such as Asia/Kolkata or UTC")


def choice(name: str, default: str, known: list[str]) -> str:
    def convert(raw: str) -> str:
        if raw.lower() not in known:
            raise ValueError(raw)
        return raw.lower()

    return _read(name, default, convert, f"one of {', '.join(known)}")


def flag(name: str, default: bool) -> bool:
    def convert(raw: str) -> bool:
        if raw.lower() in TRUE | FALSE:
            return raw.lower() in TRUE
        raise ValueError(raw)

    return _read(name, default, convert, "1 or 0")
