"""Who may call: a bearer that is a known API key, or a token that the console signed, and what it may call."""

from datetime import datetime

from accounts.claims import SKEW
from gateway.errors import Refusal, forbidden, no_key
from gateway.routes import INFERENCE, Key, Route, RouteTable, digest
from gateway.tokens import Unbelievable, UnknownSigner, read
from gateway.totals import UNBILLED

UNKNOWN_KEY = "invalid_api_key"  # the table may be older than the key, so it is read anew before this is said
MISSING = no_key("No API key given. Send it as 'Authorization: Bearer <key>'.", code="missing_api_key")
WRONG = no_key(
    "The API key is not known here. Check it, or make a new one on the console's keys page.", code=UNKNOWN_KEY
)
UNSIGNED = no_key(
    "The token was not signed by this console for calls here. Ask for a new one.", code="invalid_token"
)
GONE = no_key(
    "The token's signer, or the key or person it speaks for, is not known here. Ask for a new one.",
    code=UNKNOWN_KEY,
)
EARLY = no_key("The token was issued in the future. Set the clocks of console and gateway.", code="invalid_token")
ENDED = no_key("The API key is no longer known here.", code=UNKNOWN_KEY)
OTHER_PROJECT = forbidden("The API key belongs to another project than the endpoint.", code="other_project")
NO_SCOPE = forbidden("The API key lacks the scope 'inference', which calls need.", code="missing_scope")


def authenticate(table: RouteTable, header: str | None, *, at: datetime) -> Key | Refusal:
    """The key behind an Authorization header, or why there is none (401)."""
    scheme, _, secret = (header or "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        return MISSING
    if secret.count(".") != 2:  # which no key has
        key = table.key(secret)
        return WRONG if key is None else _expired("API key", "expired_api_key", key, at) or key
    mark = digest(secret)
    found = table.believed.get(mark) or _believed(table, secret, at)
    if isinstance(found, Refusal):
        return found
    table.believe(mark, found)
    return _expired("token", "expired_token", found, at) or found


def authorise(key: Key, route: Route) -> Refusal | None:
    """Why this key may not call this endpoint (403); None when it may."""
    if key.project_id != route.project_id:
        return OTHER_PROJECT
    if INFERENCE not in key.scopes:
        return NO_SCOPE
    if key.endpoints is not None and route.endpoint_id not in key.endpoints:
        return forbidden(f"The API key may not call the endpoint {route.name}.", code="endpoint_not_allowed")
    return None


def withdrawn(table: RouteTable, key: Key, route: Route) -> Refusal | None:
    """Why a caller who was let in before may go on no more; None while it may. What is queued was asked for by a
    key that is looked at before each run."""
    if key.id == UNBILLED:
        return None
    standing = table.standing(key)
    return ENDED if standing is None else authorise(standing, route)


def _believed(table: RouteTable, token: str, at: datetime) -> Key | Refusal:
    try:
        claims = read(token, table.trust)
    except UnknownSigner:
        return GONE
    except Unbelievable:
        return UNSIGNED
    if claims.issued_at > at + SKEW:
        return EARLY
    return table.bearer(claims) or GONE


def _expired(what: str, code: str, key: Key, at: datetime) -> Refusal | None:
    if key.expires_at is None or key.expires_at > at:
        return None
    return no_key(f"The {what} expired at {key.expires_at:%Y-%m-%d %H:%M} UTC.", code=code)
