"""May this call pass, and where to: every decision before an instance is asked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from gateway import errors
from gateway.auth import authenticate, authorise
from gateway.errors import Refusal
from gateway.rewrite import GENERATIONS
from gateway.routes import Key, Route, RouteTable, least_tokens

SERVED = dict.fromkeys((*GENERATIONS, "v1/embeddings", "v1/responses", "v1/rerank"), "POST") | {"v1/models": "GET"}
HEALTH = "health"
RETRY_SECONDS = {"deploying": 10, "scaling": 5, "updating": 5, "degraded": 3, "idle": 10, "failed": 60}


@dataclass(slots=True, eq=False)
class Request:
    """What a request's head says, whoever sends it again: header values as the client sent them, None when absent.

    `target` is path and query as they came, `socket` whether it asks to go on as a websocket.
    `request_id` is the client's own, b"" without one. `plain` if HTTP/1.1 with a body in its answer. `admitted`
    holds for the table in whose turn it was `decided`, and until `expires` (seconds since 1970).
    """

    method: str
    path: str
    host: str
    authorization: str | None
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    version: str = "1.1"
    keep: bool = True
    request_id: bytes = b""
    encoding: str | None = None
    expects_continue: bool = False
    plain: bool = True
    target: bytes = b""
    socket: bool = False
    decided: int = 0
    admitted: "Admitted | None" = None
    expires: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: an endpoint's name, its route if there is one, and the path behind it."""

    name: str
    route: Route | None
    rest: str


class Admitted(NamedTuple):
    """A caller who may call this endpoint. `refusal` is why what it asks for can't be answered all the same, which
    counts; `limited` if quotas hold for it, `tokens` the tightest limit of tokens. `target` is path and query for
    the instance, where a call passes as it is; b"" where we read it."""

    key: Key
    route: Route
    rest: str
    limited: bool = False
    refusal: Refusal | None = None
    tokens: int | None = None
    target: bytes = b""


def locate(table: RouteTable, path: str, host: str) -> Place | None:
    """Read `/e/<endpoint>/<rest>`, else `<endpoint>.<region>.<base>` from the host; None for neither."""
    if path.startswith("/e/"):
        name, _, rest = path[3:].partition("/")
        return Place(name, table.named(name), rest)
    route, name = table.hosted(host), host.partition(".")[0]
    if route is not None:
        return Place(route.name, route, path[1:])
    if path.startswith("/v1/") and name[:1].isalpha() and host.count(".") >= 2:
        return Place(name, None, path[1:])
    return None


def admit(table: RouteTable, place: Place, authorization: str | None, *, at: datetime) -> Admitted | Refusal:
    """401 before anything is said about what exists; then 404, then 403."""
    key = authenticate(table, authorization, at=at)
    if isinstance(key, Refusal):
        return key
    if place.route is None:
        return errors.unknown_endpoint(place.name)
    return authorise(key, place.route) or admitted(key, place.route, place.rest)


def admitted(key: Key, route: Route, rest: str, refusal: Refusal | None = None) -> Admitted:
    quotas = key.quotas, route.admission.quotas
    return Admitted(key, route, rest, any(quotas), refusal, least_tokens(*quotas))


def allowed(rest: str, method: str) -> Refusal | None:
    """404 for what no endpoint has, 405 for the wrong method."""
    if rest not in SERVED:
        return errors.unknown_path("/" + rest, tuple("/" + path for path in SERVED))
    return None if SERVED[rest] == method else errors.wrong_method(method, SERVED[rest])


def available(route: Route) -> Refusal | None:
    """409 while it is wished to be stopped, 503 while no instance is ready, with what is known of why."""
    if route.desired == "deleted":
        return errors.unknown_endpoint(route.name)
    if route.desired == "stopped":
        return errors.stopped(stopped_text(route))
    if route.ready:
        return None
    seconds = RETRY_SECONDS.get(route.state, 5)
    code = {"failed": "endpoint_failed", "idle": "endpoint_scaled_to_zero"}.get(route.state, "endpoint_not_ready")
    return errors.not_ready(waiting_text(route), code=code, retry_after=seconds)


def stopped_text(route: Route) -> str:
    who = f" by {route.state_by}" if route.state_by else ""
    when = f" at {route.state_since:%Y-%m-%d %H:%M} UTC" if route.state_since else ""
    return f"The endpoint {route.name} was stopped{who}{when}. Start it in the console to call it again."


def waiting_text(route: Route) -> str:
    if route.state == "failed":
        return f"The endpoint {route.name} has failed and no instance of it is ready. The console says why."
    if route.state == "idle":
        return f"The endpoint {route.name} is scaled to zero; no instance is ready."
    doing = f"{route.state}: {route.phase}" if route.phase else route.state
    return f"No instance of {route.name} is ready yet ({doing})."
