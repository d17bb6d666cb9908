"""The live data of pages: computed once a second for everybody who looks, not at all where nobody does.

to the group of an endpoint   {"type": "tick", "at": ISO time, "data": {
    "status": {"value", "label", "tone"},
    "tiles": {key: {"value": number | text instead of one | null, "tone", "tone_label", "note", "points"}},
    "charts": {id: {"x": ISO time, "y": [number | null, …]}},     once every CHART_SECONDS
    "instances": {name: {"cpu", "memory", "memory_bytes", "in_flight"}}}}
to the group of a project     {"type": "tick", "at": ISO time, "data": {
    "endpoints": {name: {"status", "label", "tone", "rps", "errors", "p95", "in_flight", "ready", "wanted"}},
    "totals": {"rps", "in_flight", "ready"}}}
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import redis
from django.db.models import Q

from endpoints import bell
from endpoints.models import Endpoint
from endpoints.status import Status
from monitoring import board, extras, numbers, presence
from monitoring.extras import Part
from monitoring.numbers import Facts
from monitoring.presence import Watched

CHART_SECONDS = 5
CHARTED = "tir:charted:"  # and a span of CHART_SECONDS by its number: its points are on their way
Json = dict[str, Any]
Message = tuple[str, Json]  # group, message


def tick(*, at: datetime) -> int:
    """Send what is watched its numbers; how many messages."""
    try:
        watched = presence.watched(bell.valkey(), at=at.timestamp())
        charts = bool(watched) and first_in_its_span(bell.valkey(), at=at)
    except (redis.RedisError, OSError):
        return 0
    messages = messages_for(watched, at=at, charts=charts) if watched else []
    bell.publish([(group, event) for group, message in messages for event in events_of(message)])
    return len(messages)


def first_in_its_span(valkey: redis.Redis, *, at: datetime) -> bool:
    """Whether this tick brings the points of charts: whichever comes first in CHART_SECONDS, since on a busy
    machine some never come."""
    key = f"{CHARTED}{int(at.timestamp()) // CHART_SECONDS}"
    return bool(valkey.set(key, 1, nx=True, ex=10 * CHART_SECONDS))


def events_of(message: Json) -> list[Json]:
    """What a group's sockets get: text, encoded here once, not by each of them. The points of charts travel
    apart, because a page that reads slowly may miss a tick, but none of them."""
    data = dict(message["data"])
    charts = data.pop("charts", None)
    events: list[Json] = [{"type": "live.tick", "text": _encoded(message | {"data": data}), "charts": False}]
    if charts is not None:
        events.append(
            {"type": "live.tick", "text": _encoded(message | {"data": {"charts": charts}}), "charts": True}
        )
    return events


def _encoded(message: Json) -> str:
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


def messages_for(watched: Watched, *, at: datetime, charts: bool = False) -> list[Message]:
    """One message for each watched group, in a number of queries that doesn't depend on how many there are."""
    wanted = Q(pk__in=watched.endpoints) | Q(project_id__in=watched.projects)
    endpoints = list(Endpoint.objects.living().filter(wanted).select_related("region").order_by("name"))
    live, speaking = board.live_now()
    facts = board.facts_of(endpoints, live, speaking=speaking, at=at)
    single = [endpoint for endpoint in endpoints if endpoint.pk in watched.endpoints]
    parts = extras.gather(single, at=at) if single else {}
    messages: list[Message] = [
        (
            bell.endpoint_group(one.pk),
            _message(endpoint_data(one, facts[one.pk], parts[one.pk], at=at, charts=charts), at),
        )
        for one in single
    ]
    rows: dict[int, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        rows[endpoint.project_id].append(endpoint)
    return messages + [
        (bell.project_group(key), _message(project_data(rows.get(key, []), facts), at)) for key in watched.projects
    ]


def _message(data: Json, at: datetime) -> Json:
    return {"type": "tick", "at": at.isoformat(), "data": data}


def endpoint_data(endpoint: Endpoint, facts: Facts, parts: Sequence[Part], *, at: datetime, charts: bool) -> Json:
    status = Status(endpoint.status)
    tiles = [*numbers.tiles(facts), *(tile for part in parts for tile in part.tiles)]
    data: Json = {
        "status": {"value": status.value, "label": status.label, "tone": status.tone},
        "tiles": {tile.key: tile.live() for tile in tiles},
        "instances": {
            one.name: {
                "cpu": one.cpu_percent,
                "memory": one.memory_percent,
                "memory_bytes": one.memory_bytes,
                "in_flight": facts.now.in_flight.get(one.name, 0),
            }
            for one in facts.used
        },
    }
    if charts:
        data["charts"] = chart_points(facts, parts, at=at)
    return data


def chart_points(facts: Facts, parts: Sequence[Part], *, at: datetime) -> Json:
    """The newest point of each chart: one number a trace, in the order in which monitoring.charts draws them."""
    x = datetime.fromtimestamp(int(at.timestamp()), UTC).isoformat()
    window, seconds = facts.now.window, facts.now.window_seconds
    answers = (window.succeeded, window.client_errors, window.server_errors, window.aborted)
    cpu = [one.cpu_percent for one in facts.used]
    memory = [one.memory_percent for one in facts.used]
    gpu = [one.gpu_percent for one in facts.used]
    points: dict[str, Sequence[float | None]] = {
        "requests": [count / seconds if facts.gateways else None for count in answers],
        "latency": [window.latency_ms(q) for q in (0.5, 0.95, 0.99)],
        "cpu": [numbers.mean(cpu), numbers.highest(cpu)],
        "memory": [numbers.mean(memory), numbers.highest(memory)],
        "gpu": [numbers.mean(gpu), numbers.highest(gpu)],
        "instances": [facts.ready, facts.starting],
    }
    for part in parts:
        points |= part.charts
    return {name: {"x": x, "y": list(y)} for name, y in points.items()}


def project_data(endpoints: Sequence[Endpoint], facts: dict[int, Facts]) -> Json:
    rows = {endpoint.name: _row(endpoint, facts[endpoint.pk]) for endpoint in endpoints}
    return {
        "endpoints": rows,
        "totals": {name: sum(row[name] for row in rows.values()) for name in ("rps", "in_flight", "ready")},
    }


def _row(endpoint: Endpoint, facts: Facts) -> Json:
    status = Status(endpoint.status)
    return {
        "status": status.value,
        "label": status.label,
        "tone": status.tone,
        "rps": facts.now.per_second,
        "errors": facts.recent.error_percent,
        "p95": facts.recent.latency_ms(0.95),
        "in_flight": facts.in_flight,
        "ready": facts.ready,
        "wanted": facts.wanted,
    }
