"""Traffic as sums: of a row, a minute, every gateway. Percentiles come from merged histograms only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from monitoring.histogram import Histogram

ENOUGH_FOR_P99 = 100
COLUMNS = (
    "requests", "succeeded", "client_errors", "server_errors", "aborted",
    "latency_first", "latency_buckets", "latency_sum_us", "latency_max_us",
    "ttft_first", "ttft_buckets", "ttft_sum_us", "ttft_max_us",
    "prompt_tokens", "completion_tokens",
)  # fmt: skip


@dataclass
class Total:
    """What was answered. `requests` is the sum of the four after it."""

    requests: int = 0
    succeeded: int = 0
    client_errors: int = 0
    server_errors: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency: Histogram = field(default_factory=Histogram)
    ttft: Histogram = field(default_factory=Histogram)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Total:
        """From the `COLUMNS` of one Traffic row."""
        return cls(
            requests=row["requests"],
            succeeded=row["succeeded"],
            client_errors=row["client_errors"],
            server_errors=row["server_errors"],
            aborted=row["aborted"],
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            latency=_stored(row, "latency"),
            ttft=_stored(row, "ttft"),
        )

    @classmethod
    def of_tick(cls, told: Mapping[str, Any]) -> Total:
        """From what a gateway tells each second. Raises KeyError, TypeError or ValueError when it is malformed."""
        return cls(
            requests=int(told["requests"]),
            succeeded=int(told["ok"]),
            client_errors=int(told["client_errors"]),
            server_errors=int(told["server_errors"]),
            aborted=int(told["aborted"]),
            prompt_tokens=int(told["prompt_tokens"]),
            completion_tokens=int(told["completion_tokens"]),
            latency=Histogram.from_json(told["latency"]),
            ttft=Histogram.from_json(told["ttft"]),
        )

    def merge(self, other: Total) -> None:
        """Take the other's counts in."""
        self.requests += other.requests
        self.succeeded += other.succeeded
        self.client_errors += other.client_errors
        self.server_errors += other.server_errors
        self.aborted += other.aborted
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.latency.merge(other.latency)
        self.ttft.merge(other.ttft)

    @property
    def error_percent(self) -> float | None:
        """Server errors and broken streams in per cent of all requests; None without any.

        A caller's own mistakes (4xx) and those who left early say nothing about the endpoint's health.
        """
        return 100 * self.server_errors / self.requests if self.requests else None

    def latency_ms(self, q: float) -> float | None:
        """A latency percentile; None without requests, and for p99 where under 100 make it a coincidence."""
        if q >= 0.99 and self.latency.count < ENOUGH_FOR_P99:
            return None
        return milliseconds(self.latency.quantile(q))


def _stored(row: Mapping[str, Any], name: str) -> Histogram:
    counts = row[f"{name}_buckets"]
    return Histogram.stored(
        row[f"{name}_first"],
        counts,
        count=sum(counts),
        sum_us=row[f"{name}_sum_us"],
        max_us=row[f"{name}_max_us"],
    )


def milliseconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def merged(totals: Iterable[Total]) -> Total:
    """The sum of many, none of them changed."""
    whole = Total()
    for total in totals:
        whole.merge(total)
    return whole
