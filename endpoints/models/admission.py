"""How an endpoint lets requests in: limits of all its callers together, who waits, and which pages may call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.refused import Refused

# column -> (label, lowest, highest)
RANGES: dict[str, tuple[str, int, int]] = {
    "requests_per_minute": ("requests a minute", 1, 10_000_000),
    "tokens_per_minute": ("tokens a minute", 1, 1_000_000_000),
    "concurrent_requests": ("requests at once", 1, 100_000),
    "queue_limit": ("requests in the queue", 0, 10_000),
    "queue_seconds": ("seconds in the queue", 0, 600),
    "wake_seconds": ("seconds for waking", 5, 3600),
    "max_response_mb": ("MiB of an answer", 1, 10_240),
}
UNLIMITED = frozenset({"requests_per_minute", "tokens_per_minute", "concurrent_requests", "max_response_mb"})
MOST_ORIGINS = 20
LONGEST_ORIGIN = 255


class Admission(models.Model):
    """The traffic rules of one endpoint; one without a row has the defaults. None is no limit.

    `queue_seconds` is how long a request waits while instances are busy, `wake_seconds` while the endpoint
    wakes from zero. Pages of `origins` may call it from a browser.
    """

    endpoint = models.OneToOneField("Endpoint", models.CASCADE, related_name="admission")
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrent_requests = models.PositiveIntegerField(null=True, blank=True)
    queue_limit = models.PositiveSmallIntegerField(default=100)
    queue_seconds = models.PositiveSmallIntegerField(default=30)
    wake_seconds = models.PositiveSmallIntegerField(default=300)
    origins = ArrayField(models.CharField(max_length=LONGEST_ORIGIN), default=list, blank=True)
    max_response_mb = models.PositiveSmallIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(**{f"{name}__gte": low, f"{name}__lte": high})
                | (Q(**{name: None}) if name in UNLIMITED else Q()),
                name=f"admission_{name}_range",
            )
            for name, (_, low, high) in RANGES.items()
        ]

    def __str__(self) -> str:
        return f"admission of {self.endpoint}"

    def change(self, changes: Mapping[str, Any]) -> list[str]:
        """Take these columns on, not yet saved; what changed from what to what, in words. Raises Refused."""
        said = []
        for name, given in changes.items():
            new = origins_of(given) if name == "origins" else _in_range(name, given)
            before = getattr(self, name)
            if new != before:
                said.append(f"{label_of(name)} {_shown(before)} → {_shown(new)}")
                setattr(self, name, new)
        return said


def label_of(column: str) -> str:
    return "browser origins" if column == "origins" else RANGES[column][0]


def _in_range(name: str, given: int | None) -> int | None:
    label, low, high = RANGES[name]
    optional = name in UNLIMITED
    if given is None and optional:
        return None
    if given is None or not low <= given <= high:
        gave = "nothing" if given is None else f"{given:,}"
        none = ", or nothing for no limit" if optional else ""
        said = f"{label[0].upper()}{label[1:]} must be from {low:,} to {high:,}{none}; you gave {gave}."
        raise Refused(said, field=name, code="out_of_range")
    return given


def origins_of(given: list[str]) -> list[str]:
    """As a browser names them, each once, in their order. Raises Refused for what is no web origin."""
    found = list(dict.fromkeys(_origin(text) for text in given))
    if len(found) > MOST_ORIGINS:
        said = f"An endpoint has at most {MOST_ORIGINS} browser origins; you gave {len(found)}."
        raise Refused(said, field="origins", code="out_of_range")
    return found


def _origin(text: str) -> str:
    try:
        place = urlsplit(text.strip())
        port = place.port
    except ValueError:
        raise _no_origin(text) from None
    scheme, host = place.scheme, place.hostname or ""
    bare = place.path in ("", "/") and not (place.query or place.fragment or "@" in place.netloc)
    if scheme not in ("http", "https") or not bare or not _is_host(host) or port == 0:
        raise _no_origin(text)
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{host}" if port in (None, usual) else f"{scheme}://{host}:{port}"


def _is_host(host: str) -> bool:
    """ASCII, because a browser sends a name in other letters as punycode; no room for a wildcard."""
    plain = host.isascii() and all(letter.isalnum() or letter in "-._:" for letter in host)
    return bool(host) and plain and len(host) <= LONGEST_ORIGIN - len("https://[]:65535")


def _no_origin(text: str) -> Refused:
    shown = text if len(text) <= 80 else text[:79] + "…"
    said = f"“{shown}” is no origin. Give scheme and host, such as https://app.example or http://localhost:3000."
    return Refused(said, field="origins", code="invalid")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "no limit" if value is None else f"{value:,}"
