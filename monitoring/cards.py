"""The charts an endpoint's page has: what each is called, what it measures, where its data comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from endpoints.models import Endpoint
from monitoring import board, charts, extras, history
from monitoring.charts import Chart
from monitoring.window import Window


@dataclass(frozen=True)
class Card:
    """`load` answers in a constant number of queries; `format` and `unit` are the chart card's."""

    id: str
    title: str
    load: Callable[[Endpoint, Window], Chart]
    format: str = "number"
    unit: str = ""
    tick: str = ""  # of the live value beside the title
    note: str = ""


def _requests(endpoint: Endpoint, window: Window) -> Chart:
    return charts.requests(history.traffic(endpoint, window), window, since=endpoint.created_at)


def _latency(endpoint: Endpoint, window: Window) -> Chart:
    return charts.latency(history.traffic(endpoint, window), window)


def _cpu(endpoint: Endpoint, window: Window) -> Chart:
    return charts.usage(*history.usage(endpoint, "cpu", window), window)


def _memory(endpoint: Endpoint, window: Window) -> Chart:
    return charts.usage(*history.usage(endpoint, "memory", window), window)


def _gpu(endpoint: Endpoint, window: Window) -> Chart:
    mean, highest = history.usage(endpoint, "gpu", window)
    if history.measured(mean):
        return charts.usage(mean, highest, window)
    live = board.instances_of([endpoint.pk]).get(endpoint.pk, [])
    return charts.usage(mean, highest, window, absent=f"Not measured here: {board.no_gpu(endpoint, live)}.")


def _instances(endpoint: Endpoint, window: Window) -> Chart:
    return charts.instances(history.lives(endpoint, window), window)


OWN = [
    Card("requests", "Requests", _requests, unit="/s", tick="tiles.rps", note="By how they were answered"),
    Card(
        "latency",
        "Latency",
        _latency,
        format="ms",
        tick="tiles.p95",
        note="Whole answers, from merged histograms; p99 of 100 requests and more",
    ),
    Card("cpu", "CPU", _cpu, format="percent", tick="tiles.cpu", note="Of each instance's vCPUs"),
    Card("memory", "Memory", _memory, format="percent", tick="tiles.memory", note="Of each instance's memory"),
    Card("gpu", "GPU", _gpu, format="percent", tick="tiles.gpu", note="NVML's utilization"),
    Card("instances", "Instances", _instances, tick="tiles.ready"),
]


def cards() -> Mapping[str, Card]:
    """By id: ours, then those that higher apps added."""
    return {card.id: card for card in OWN} | extras.charts
