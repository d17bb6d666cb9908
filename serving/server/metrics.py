"""What /metrics tells a Prometheus, and what the drain goes by."""

from __future__ import annotations

from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a line of its own for each series, which nobody reads


class Metrics:
    """One process's counters, all under `tir_serving_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        where: Any = {"namespace": "tir_serving", "registry": self.registry}
        self.requests = Counter("requests", "Answered requests.", ["path", "status"], **where)
        self.errors = Counter("errors", "Requests that were answered with an error.", ["path", "code"], **where)
        self.seconds = Histogram(
            "request_seconds", "From a request's head to its last byte.", ["path"], buckets=LATENCIES, **where
        )
        self.batches = Histogram("batch_size", "Items worked on together.", ["kind"], buckets=BATCHES, **where)
        self.queued = Gauge("queued", "Requests and items that wait for a worker.", **where)
        self.in_flight = Gauge("in_flight", "Requests to the model that are not answered yet.", **where)
        self.tokens = Counter("tokens", "Tokens, where the model has a tokenizer.", ["kind"], **where)

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)
