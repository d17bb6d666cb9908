"""Remembered requests: finding them, and what each says about where its time went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.db import models
from django.db.models import QuerySet

from endpoints.models import Endpoint
from endpoints.spec import BillingModel
from monitoring.models import RequestRecord, StatusClass

CLIENT_LEFT = 499
PER_PAGE = 50


class Kept(models.TextChoices):
    """What a request is remembered for; it may be for several."""

    ERRORS = "errors", "Errors"
    SLOWEST = "slowest", "Slowest"
    SAMPLE = "sample", "Sample"


REASONS = {Kept.ERRORS: "error", Kept.SLOWEST: "slowest", Kept.SAMPLE: "sample"}


def found(endpoint: Endpoint, *, kept: str = "", status: str = "", q: str = "") -> QuerySet[RequestRecord]:
    """Newest first. `status` is a class (2xx, 4xx, 499, 5xx) or one status; `q` a part of the request id."""
    rows = endpoint.request_records.select_related("revision", "key").order_by("-at", "-id")
    rows = rows.defer("request_body", "answer_body")
    if kept == Kept.ERRORS:
        rows = rows.filter(status__gte=400)
    elif kept == Kept.SLOWEST:
        rows = rows.filter(slow=True)
    elif kept == Kept.SAMPLE:
        rows = rows.filter(sample=True)
    if status:
        rows = _of_status(rows, status)
    return rows.filter(request_id__icontains=q) if q else rows


def is_status(text: str) -> bool:
    return text in StatusClass.values or (len(text) == 3 and text.isascii() and text.isdigit())


def _of_status(rows: QuerySet[RequestRecord], status: str) -> QuerySet[RequestRecord]:
    if not is_status(status):
        return rows.none()
    if status == StatusClass.CLIENT_ERROR:
        return rows.filter(status__gte=400, status__lt=500).exclude(status=CLIENT_LEFT)
    if status.endswith("xx"):
        first = int(status[0]) * 100
        return rows.filter(status__gte=first, status__lt=first + 100)
    return rows.filter(status=int(status))


def reasons(record: RequestRecord) -> list[Kept]:
    """Why it is remembered."""
    named = {Kept.ERRORS: record.status >= 400, Kept.SLOWEST: record.slow, Kept.SAMPLE: record.sample}
    return [kept for kept, holds in named.items() if holds]


def tone(record: RequestRecord) -> str:
    if record.status < 400:
        return "ok"
    return "bad" if record.status >= 500 else "warn"


def outcome(record: RequestRecord) -> str:
    """How it ended, in a sentence."""
    if record.status == CLIENT_LEFT:
        return "The caller left before the answer was whole."
    if record.status < 400:
        return "It was answered."
    if not record.code:
        return "The engine answered with this error."
    if record.code.startswith("upstream"):
        return "The instance gave no whole answer."
    return "The gateway refused it."


def basis(record: RequestRecord) -> str:
    """Which price applies to it. What it cost is known of the whole only: instances are paid by time."""
    if record.cost_basis == BillingModel.PER_REQUEST:
        return "Per request: it counts as one, at the price of its moment. Instance hours come on top."
    if record.cost_basis == BillingModel.HOURLY:
        return "Per hour: it has no price of its own, only a share of the time its instances ran."
    return "Unknown: its revision is gone."


# ── where the time went ──────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Part:
    """A stretch of a request's time. `series` is its colour; `left` and `width` are per cent of the whole."""

    name: str
    about: str
    us: int
    series: int
    left: str
    width: str

    @property
    def ms(self) -> float:
        return self.us / 1000


def parts(record: RequestRecord) -> list[Part]:
    """Stretches in order, none of them empty; together they are the whole."""
    found, at, whole = [], 0, max(record.total_us, 1)
    for name, about, end, series in _marks(record):
        took = min(end, record.total_us) - at
        if took > 0:
            left, width = f"{at / whole * 100:.2f}%", f"{took / whole * 100:.2f}%"
            found.append(Part(name, about, took, series, left, width))
            at += took
    return found


def _marks(record: RequestRecord) -> Iterator[tuple[str, str, int, int]]:
    """Each stretch with its end, in microseconds since the request came."""
    at = record.queue_us
    if record.cold_start:
        yield "Cold start", "The endpoint was asleep; the request was held until an instance was ready.", at, 4
    else:
        yield "Queue", "Every instance was busy; the request waited for its turn.", at, 4
    at += record.connect_us
    yield "Connection", "A connection to the instance was opened.", at, 3
    if record.first_byte_us is None:
        about = "It ended before an instance answered."
        yield "No answer", about, record.total_us, 2
        return
    about = "The request was read and checked, and the instance worked until the first byte of its answer."
    yield "First byte", about, record.first_byte_us, 1
    at = record.first_byte_us
    if record.ttft_us is not None:
        yield "First token", "The answer had begun; its first token was on its way.", record.ttft_us, 2
        yield "Generation", "Tokens came, and were passed on as they came.", record.total_us, 5
    else:
        yield "Answer", "The rest of the answer came and was passed on.", record.total_us, 5
