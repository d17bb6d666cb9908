"""Who may call: a bearer key that is known, not expired, may infer, and is of the endpoint's project."""

from datetime import datetime

from gateway.errors import Refusal, forbidden, no_key
from gateway.routes import INFERENCE, Key, Route, RouteTable

MISSING = "No API key given. Send it as 'Authorization: Bearer <key>'."
UNKNOWN_KEY = "invalid_api_key"
WRONG = "The API key is not known here. Check it, or make a new one on the console's keys page."


def authenticate(table: RouteTable, header: str | None, *, at: datetime) -> Key | Refusal:
    """The key behind an Authorization header, or why there is none (401)."""
    if not header:
        return no_key(MISSING, code="missing_api_key")
    scheme, _, secret = header.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        return no_key(MISSING, code="missing_api_key")
    key = table.key(secret)
    if key is None:
        return no_key(WRONG, code=UNKNOWN_KEY)
    if key.expires_at is not None and key.expires_at <= at:
        when = key.expires_at.strftime("%Y-%m-%d %H:%M UTC")
        return no_key(f"The API key expired at {when}.", code="expired_api_key")
    return key


def authorise(key: Key, route: Route) -> Refusal | None:
    """Why this key may not call this endpoint (403); None when it may."""
    if key.project_id != route.project_id:
        return forbidden("The API key belongs to another project than the endpoint.", code="other_project")
    if INFERENCE not in key.scopes:
        return forbidden("The API key lacks the scope 'inference', which calls need.", code="missing_scope")
    return None
