"""The message a gateway publishes every second: Valkey key `tir:gateway:<source>`, JSON, gone after 5 s.

    {"at": 1764044622.1,                  when it was made, seconds since 1970
     "source": "3f9c0d21ab4e",            which gateway; sum over all keys `tir:gateway:*` for the whole
     "left": true,                        only in the last one: it ended in order, and is not to be missed
     "endpoints": {"<endpoint id>": {     only those with something in flight or queued, or traffic in the window
        "in_flight": {"<instance name>": 3, ...},     requests being answered now, at this gateway
        "queued": 2,                                  requests that wait for an instance now, at this gateway
        "sockets": 1,                                 websockets among those in flight
        "window": {"seconds": 10, ...TOTAL},          what ended in the last ten seconds
        "minute": {"at": 1764044580, ...TOTAL}}}}     what ended since the running minute began

TOTAL is {"requests", "ok", "client_errors", "aborted", "server_errors", "prompt_tokens", "completion_tokens",
"estimated_tokens", "bytes_in", "bytes_out": whole numbers, "latency": HISTOGRAM, "ttft": HISTOGRAM}; requests
is the sum of the four after it; estimated_tokens are among the other tokens; ttft counts streams only.
HISTOGRAM is what `monitoring.histogram.Histogram.from_json` reads: {"first", "counts", "count", "sum_us",
"max_us"}. Requests a second are `window.requests / window.seconds`. A gateway younger than ten seconds still
says 10. Numbers of several gateways add up, histograms by `merge`.
"""

from collections.abc import Mapping
from typing import Any

from gateway.meter import WINDOW_SECONDS, Meter
from gateway.routes import Route
from gateway.totals import ABORTED, CLIENT_ERROR, OK, SERVER_ERROR, Total

Json = dict[str, Any]
CHANNEL_PREFIX = "tir:gateway:"
LIVES_SECONDS = 5


def tick(
    meter: Meter,
    routes: Mapping[str, Route],
    in_flight: Mapping[str, int],
    queued: Mapping[int, int],
    sockets: Mapping[int, int],
    *,
    now: float,
) -> Json:
    """The message as it stands at `now`; `in_flight` by instance name, `queued` and `sockets` by endpoint id."""
    windows, minutes = dict(meter.windows_now(now)), meter.minute(now)
    busy = busy_instances(routes, in_flight)
    start = int(now) - int(now) % 60
    return {
        "at": now,
        "source": meter.totals.source,
        "endpoints": {
            str(endpoint_id): {
                "in_flight": busy.get(endpoint_id, {}),
                "queued": queued.get(endpoint_id, 0),
                "sockets": sockets.get(endpoint_id, 0),
                "window": {"seconds": WINDOW_SECONDS, **as_json(windows.get(endpoint_id, Total()))},
                "minute": {"at": start, **as_json(minutes.get(endpoint_id, Total()))},
            }
            for endpoint_id in sorted(windows.keys() | busy.keys() | queued.keys())
        },
    }


def busy_instances(routes: Mapping[str, Route], in_flight: Mapping[str, int]) -> dict[int, dict[str, int]]:
    """Instances with requests in flight, by endpoint."""
    found: dict[int, dict[str, int]] = {}
    if in_flight:
        for route in routes.values():
            for one in route.instances:
                if one.name in in_flight:
                    found.setdefault(route.endpoint_id, {})[one.name] = in_flight[one.name]
    return found


def as_json(total: Total) -> Json:
    return {
        "requests": total.requests,
        "ok": total.classes.get(OK, 0),
        "client_errors": total.classes.get(CLIENT_ERROR, 0),
        "aborted": total.classes.get(ABORTED, 0),
        "server_errors": total.classes.get(SERVER_ERROR, 0),
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "estimated_tokens": total.estimated_tokens,
        "bytes_in": total.bytes_in,
        "bytes_out": total.bytes_out,
        "latency": total.latency.as_json(),
        "ttft": total.ttft.as_json(),
    }
