"""What the gateway knows of the world: endpoints with their instances, and who may call them.

All of it is frozen and lives in memory; `gateway.store` reads it afresh from the database and the whole
table is replaced in one assignment, so a request sees one state of the world from start to end.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.tokens import MOST_REMEMBERED, Claims, Trust

INFERENCE = "inference"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One instance of an endpoint, of one of its revisions; `name` is unique over all endpoints."""

    name: str
    host: str
    port: int
    ready: bool = True
    revision_id: int = 0
    address: tuple[str, int] = field(init=False)
    authority: bytes = field(init=False)  # as a Host header has it

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", (self.host, self.port))
        object.__setattr__(self, "authority", f"{self.host}:{self.port}".encode())


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a caller may ask for, of all gateways together; None is no limit. Never all three None."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


def least_tokens(*quotas: Quotas | None) -> int | None:
    """The tightest limit of tokens among these; None where none has one."""
    limits = [one.tokens_per_minute for one in quotas if one is not None and one.tokens_per_minute is not None]
    return min(limits) if limits else None


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
    `defaults` (temperature, top_k, top_p) are filled into requests that don't set them. `aliases` are names that a
    call may give the model beside the endpoint's own: what it is called where it comes from.
    `awaited`: while no instance is ready calls are held, because one becomes ready without a person's doing;
    `asleep`: it does so when it is called, for it is scaled to zero. Of `bodies_one_in` requests the bodies
    of one are kept; 0 keeps none. `open`: what runs there has paths of its own, so any path and websockets pass;
    `foreign`: it is an image of the user's own, which has its own names for models.
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
    bodies_one_in: int = 0
    open: bool = False
    foreign: bool = False
    ready: tuple[Upstream, ...] = field(init=False)
    models: tuple[str, ...] = field(init=False)  # what a call may name the model; the engine is told the first

    def __post_init__(self) -> None:
        object.__setattr__(self, "ready", tuple(one for one in self.instances if one.ready))
        object.__setattr__(self, "models", (self.name, *self.aliases))


@dataclass(frozen=True, slots=True)
class Key:
    """A caller's credential as the gateway knows it; the secret itself is nowhere but in the client's hands.

    `id` is that of the API key its calls count for, None for a person's token. `holder` is whose `quotas` they
    are: all credentials of one service account, and all tokens of one key, share them.
    """

    id: int | None
    project_id: int
    scopes: frozenset[str] = frozenset({INFERENCE})
    expires_at: datetime | None = None
    endpoints: frozenset[int] | None = None  # ids of those it may call; None is all of its project
    quotas: Quotas | None = None
    holder: str = ""

    def __post_init__(self) -> None:
        if not self.holder:
            object.__setattr__(self, "holder", f"key:{self.id}")


def digest(secret: str) -> str:
    """What is stored of a key and looked up: the SHA-256 of the whole, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


class RouteTable:
    """Look-ups without a query: by endpoint name, by host, by the digest of a key, by a signed token.

    `believed` are the tokens that this table has let in, by digest; a new table asks anew what they may.
    """

    def __init__(
        self, routes: Iterable[Route] = (), keys: Mapping[str, Key] | None = None, trust: Trust | None = None
    ) -> None:
        self.routes = {route.name: route for route in routes}
        self.keys = dict(keys or {})
        self.trust = trust or Trust()
        self.numbered = {key.id: key for key in self.keys.values()}
        self.believed: dict[str, Key] = {}

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

    def bearer(self, claims: Claims) -> Key | None:
        """What a token of these claims may do now; None once its key or person may do nothing here."""
        if claims.key_id is not None:
            key = self.numbered.get(claims.key_id)
        elif (claims.person_id, claims.project_id) in self.trust.callers:
            key = Key(None, claims.project_id, holder=f"person:{claims.person_id}")
        else:
            key = None
        if key is None or key.project_id != claims.project_id:
            return None
        ends = claims.expires_at if key.expires_at is None else min(key.expires_at, claims.expires_at)
        lists = [ids for ids in (key.endpoints, claims.endpoints) if ids is not None]
        return replace(
            key,
            scopes=key.scopes & claims.scopes,
            expires_at=ends,
            endpoints=frozenset.intersection(*lists) if lists else None,
        )

    def standing(self, key: Key) -> Key | None:
        """What a caller who was let in before may do now, whatever it came with; None once it may do nothing."""
        if key.id is not None:
            return self.numbered.get(key.id)
        kind, _, number = key.holder.partition(":")
        known = kind == "person" and (int(number), key.project_id) in self.trust.callers
        return key if known else None

    def believe(self, token: str, key: Key) -> None:
        """Let this token in from here on; the longest remembered of too many is asked about anew."""
        if token not in self.believed and len(self.believed) >= MOST_REMEMBERED:
            del self.believed[next(iter(self.believed))]
        self.believed[token] = key
