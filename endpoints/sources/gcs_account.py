"""A Google service account's key, and the short-lived tokens it gets (RFC 7523)."""

import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import jwt

from endpoints.sources.base import SourceProblem
from endpoints.sources.network import client, unreachable

SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"
TOKENS: Final = "https://oauth2.googleapis.com/token"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME: Final = 3600
AHEAD: Final = 60  # seconds before its end when a token is replaced


@dataclass
class Account:
    """`email` names it; `tokens` is where it gets its tokens."""

    email: str
    tokens: str
    key: str = field(repr=False)
    private: bool
    timeout: float
    _token: str = field(default="", repr=False)
    _until: float = 0.0

    @classmethod
    def of(cls, text: str, *, private: bool, timeout: float) -> "Account":
        """SourceProblem("bad_key") for what is not a service account's key."""
        try:
            held = json.loads(text)
            email, key, tokens = held["client_email"], held["private_key"], held.get("token_uri") or TOKENS
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _no_key("holds no service account's key") from None
        return cls(str(email), str(tokens), str(key), private, timeout)

    def token(self) -> str:
        """Valid for a while yet. SourceProblem if there is none to be had."""
        if time.time() > self._until - AHEAD:
            self._renew(int(time.time()))
        return self._token

    def _renew(self, now: int) -> None:
        claims = {"iss": self.email, "scope": SCOPE, "aud": self.tokens, "iat": now, "exp": now + LIFETIME}
        try:
            assertion = jwt.encode(claims, self.key, "RS256")
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _no_key("holds a private key that can't be read") from None
        try:
            with client(private=self.private, timeout=self.timeout, follow_redirects=False) as asked:
                answer = asked.post(self.tokens, data={"grant_type": GRANT, "assertion": assertion})
        except httpx2.HTTPError as error:
            raise unreachable(self.tokens, error, "token_secret") from None
        said = _json(answer)
        if answer.is_error or "access_token" not in said:
            raise self._refused(answer, said)
        self._token, self._until = str(said["access_token"]), now + int(said.get("expires_in", LIFETIME))

    def _refused(self, answer: httpx2.Response, said: dict[str, Any]) -> SourceProblem:
        why = str(said.get("error_description") or said.get("error") or answer.status_code)
        if answer.status_code >= 500:
            return SourceProblem(
                "busy", f"{self.tokens} has a problem of its own ({why}). Try again.", passing=True
            )
        if "short-lived" in why or "iat" in why:
            theirs = answer.headers.get("Date", "another time")
            said_so = (
                f"The clock of the machine that the console runs on is wrong: Google's says {theirs}. Set it."
            )
            return SourceProblem("clock_skew", said_so)
        return SourceProblem(
            "bad_key",
            f"Google doesn't accept the key of {self.email} ({why[:120]}): it was deleted, disabled or replaced. "
            "Make a new key and store it in the secret.",
            "token_secret",
        )


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _no_key(what: str) -> SourceProblem:
    said = f"The secret {what}. Store the whole JSON file that Google gives for a service account's key."
    return SourceProblem("bad_key", said, "token_secret")
