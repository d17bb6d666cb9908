"""Measurements that tests speak of: traffic rows, gateway ticks, log lines, a runtime that tells them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from endpoints import bell
from endpoints.models import Endpoint, Instance
from endpoints.runtimes.base import LogLine as Written
from endpoints.runtimes.base import Sampled
from monitoring.histogram import Histogram
from monitoring.models import LogLine, RequestRecord, Traffic

AT = datetime(2026, 11, 25, 10, 0, 30, tzinfo=UTC)


def histogram(*milliseconds: float) -> Histogram:
    made = Histogram()
    for each in milliseconds:
        made.add(round(each * 1000))
    return made


def traffic(
    of: Endpoint, minute: datetime, *latencies: float, source: str = "g1", failed: int = 0, **fields: Any
) -> Traffic:
    """One gateway's minute: a request for each latency in ms, `failed` of them with 5xx."""
    latency = histogram(*latencies)
    first, counts = latency.slice()
    return Traffic.objects.create(
        **{
            "endpoint": of,
            "revision": of.revisions.latest("number"),
            "minute": minute,
            "source": source,
            "requests": len(latencies),
            "succeeded": len(latencies) - failed,
            "server_errors": failed,
            "latency_first": first,
            "latency_buckets": counts,
            "latency_sum_us": latency.sum_us,
            "latency_max_us": latency.max_us,
        }
        | fields
    )


def told(*latencies: float, failed: int = 0) -> dict[str, Any]:
    """A TOTAL as a gateway's tick has it."""
    return {
        "requests": len(latencies), "ok": len(latencies) - failed, "client_errors": 0, "aborted": 0,
        "server_errors": failed, "prompt_tokens": 0, "completion_tokens": 0, "estimated_tokens": 0,
        "bytes_in": 0, "bytes_out": 0, "latency": histogram(*latencies).as_json(), "ttft": histogram().as_json(),
    }  # fmt: skip


def word(
    endpoint_id: int,
    window: dict[str, Any],
    *,
    minute_at: int = 0,
    in_flight: Mapping[str, int] | None = None,
    queued: int = 0,
) -> dict[str, Any]:
    part = {
        "in_flight": dict(in_flight or {}),
        "queued": queued,
        "window": {"seconds": 10, **window},
        "minute": {"at": minute_at, **window},
    }
    return {"at": time.time(), "source": "g1", "endpoints": {str(endpoint_id): part}}


def speak(source: str, said: Any) -> None:
    """Say it as a gateway does, for as long as a test may take."""
    bell.valkey().set(f"tir:gateway:{source}", json.dumps(said), ex=60)


def lines(of: Instance, count: int, *, start: int = 1, text: str = "line", gaps: Iterable[int] = ()) -> None:
    """Stored lines numbered from `start`."""
    LogLine.objects.bulk_create(
        LogLine(
            instance=of,
            endpoint_id=of.endpoint_id,
            sequence=number,
            offset=number,
            at=AT + timedelta(seconds=number),
            stream="stderr",
            text=f"{text} {number}",
            gap=number in set(gaps),
        )
        for number in range(start, start + count)
    )


def request(of: Endpoint, request_id: str = "r-1", **fields: Any) -> RequestRecord:
    """One remembered request: a stream that was answered, unless told otherwise."""
    known = {
        "at": timezone.now(), "revision": of.revisions.latest("number"), "instance": "tiny-0", "method": "POST",
        "path": "/v1/chat/completions", "status": 200, "stream": True, "sample": True, "connect_us": 400,
        "first_byte_us": 90_000, "ttft_us": 95_000, "total_us": 500_000, "prompt_tokens": 1200,
        "completion_tokens": 34, "request_bytes": 2048, "response_bytes": 700,
    }  # fmt: skip
    return RequestRecord.objects.create(endpoint=of, request_id=request_id, **known | fields)


class TellingRuntime:
    """A runtime that tells what it was given: lines by instance, what is used, what it was told to forget."""

    def __init__(self) -> None:
        self.written: dict[str, list[Written]] = {}
        self.used: dict[str, Sampled] = {}
        self.forgotten: list[str] = []
        self.asked: list[tuple[str, int]] = []

    def write(self, name: str, *texts: str, offset: int | None = None) -> None:
        mine = self.written.setdefault(name, [])
        number = offset or (mine[-1].offset + 1 if mine else 1)
        for place, text in enumerate(texts):
            mine.append(Written(at=AT, stream="stderr", text=text, offset=number + place))

    def logs(self, name: str, after: int, limit: int) -> list[Written]:
        self.asked.append((name, after))
        return [line for line in self.written.get(name, []) if line.offset > after][:limit]

    def usage(self, owner: str | None = None) -> dict[str, Sampled]:
        return dict(self.used)

    def forget(self, name: str) -> None:
        self.forgotten.append(name)
