"""What the gateway knows of the world: endpoints with their instances, and who may call them.

All of it is frozen and lives in memory; `gateway.store` reads it afresh from the database and the whole
table is replaced in one assignment, so a request sees one state of the world from start to end.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

INFERENCE = "inference"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One instance of an endpoint, of one of its revisions; `name` is unique over all endpoints."""

    name: str
    host: str
    port: int
    ready: bool = True
    revision_id: int = 0


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a caller may ask for, of all gateways together; None is no limit. Never all three None."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """How an endpoint lets requests in: its quotas, and how many wait for how many seconds.

    `queue_seconds` while instances are busy, `wake_seconds` while the endpoint wakes from zero. `origins` are
    those whose pages may call from a browser, as the Origin header names them; no answer is longer than
    `max_response_bytes`.
    """

    quotas: Quotas | None = None
    queue_limit: int = 100
    queue_seconds: float = 30.0
    wake_seconds: float = 300.0
    origins: frozenset[bytes] = frozenset()
    max_response_bytes: int | None = None


DEFAULT_ADMISSION = Admission()


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `desired` is running, stopped or deleted; `state` its status as the console shows it.

    `revision_id` counts what no instance answered. `state_since` and `state_by` say since when and by whom
    it is wished so, `phase` what a deployment under way is doing, as a person would say it.
    `defaults` (temperature, top_k, top_p) are filled into requests that don't set them.
    `awaited`: while no instance is ready calls are held, because one becomes ready without a person's doing;
    `asleep`: it does so when it is called, for it is scaled to zero.
    """

    endpoint_id: int
    name: str
    region: str
    project_id: int
    revision_id: int
    desired: str = "running"
    state: str = "active"
    state_since: datetime | None = None
    state_by: str = ""
    phase: str = ""
    instances: tuple[Upstream, ...] = ()
    defaults: Mapping[str, float | int] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    capacity_per_instance: int = 0
    context_length: int = 0
    admission: Admission = DEFAULT_ADMISSION
    awaited: bool = False
    asleep: bool = False
    ready: tuple[Upstream, ...] = field(init=False)
    models: tuple[str, ...] = field(init=False)  # what a call may name the model; the engine is told the first

    def __post_init__(self) -> None:
        object.__setattr__(self, "ready", tuple(one for one in self.instances if one.ready))
        object.__setattr__(self, "models", (self.name, *self.aliases))


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as the gateway knows it; the secret itself is nowhere but in the client's hands."""

    id: int
    project_id: int
    scopes: frozenset[str] = frozenset({INFERENCE})
    expires_at: datetime | None = None
    endpoints: frozenset[int] | None = None  # ids of those it may call; None is all of its project
    quotas: Quotas | None = None


def digest(secret: str) -> str:
    """What is stored of a key and looked up: the SHA-256 of the whole, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


class RouteTable:
    """Look-ups without a query: by endpoint name, by host, by the digest of a key."""

    def __init__(self, routes: Iterable[Route] = (), keys: Mapping[str, Key] | None = None) -> None:
        self.routes = {route.name: route for route in routes}
        self.keys = dict(keys or {})

    def __len__(self) -> int:
        return len(self.routes)

    def named(self, name: str) -> Route | None:
        return self.routes.get(name)

    def hosted(self, host: str) -> Route | None:
        """The route of `<endpoint>.<region>.<base>[:port]`; None when the host names no endpoint."""
        name, _, rest = host.lower().partition(".")
        region, _, base = rest.partition(".")
        route = self.routes.get(name)
        return route if route is not None and base and route.region == region else None

    def key(self, secret: str) -> Key | None:
        return self.keys.get(digest(secret))
