"""Who may call, decided without a server: keys, and tokens signed by one of the console's keys."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import tokens
from gateway.auth import UNKNOWN_KEY, authenticate, authorise
from gateway.errors import Refusal
from gateway.routes import Key, Quotas, Route, RouteTable, digest
from gateway.tokens import Trust

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
ISSUER = "https://console.example"
PRIVATE, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SECRET = "tir_alice000_secret"
KEY = Key(1, project_id=3, endpoints=frozenset({5, 6}), quotas=Quotas(60), holder="account:9")
ROUTE = Route(5, "tiny", "local", project_id=3, revision_id=7)


def table(*, keys: dict[str, Key] | None = None, **trust: Any) -> RouteTable:
    believed: dict[str, Any] = {"issuer": ISSUER, "signers": {"k1": PRIVATE.public_key().public_bytes_raw()}}
    held = {digest(SECRET): KEY} if keys is None else keys
    return RouteTable([ROUTE], held, Trust(**(believed | {"callers": frozenset({(8, 3)})} | trust)))


def said(**changes: Any) -> dict[str, Any]:
    stamp = int(AT.timestamp())
    claims = {"iss": ISSUER, "aud": "tir-gateway", "sub": "key:1", "iat": stamp, "exp": stamp + 900, "jti": "j"}
    return claims | {"project": 3, "key": 1, "endpoints": None, "scope": "inference"} | changes


def token(private: Any = PRIVATE, kid: Any = "k1", algorithm: str = "EdDSA", **changes: Any) -> str:
    return jwt.encode(said(**changes), private, algorithm, headers={"kid": kid})


def ask(secret: str, known: RouteTable | None = None, at: datetime = AT) -> Key | Refusal:
    return authenticate(known or table(), f"Bearer {secret}", at=at)


def refused(answer: Key | Refusal | None) -> tuple[int, str]:
    assert isinstance(answer, Refusal), answer
    assert json.loads(answer.body())["error"]["message"]
    return answer.status, answer.code


def test_a_key_is_let_in_as_the_table_has_it() -> None:
    assert ask(SECRET) == KEY


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", f"Basic {SECRET}", SECRET])
def test_no_bearer_is_a_missing_key(header: str | None) -> None:
    assert refused(authenticate(table(), header, at=AT)) == (401, "missing_api_key")


def test_a_key_ends_at_its_moment() -> None:
    known = table(keys={digest(SECRET): replace(KEY, expires_at=AT)})
    assert ask(SECRET, known, AT - timedelta(microseconds=1)) == replace(KEY, expires_at=AT)
    assert refused(ask(SECRET, known)) == (401, "expired_api_key")


def test_a_keys_token_is_its_key_for_as_long_as_both_live() -> None:
    ends = AT + timedelta(seconds=900)
    assert ask(token()) == replace(KEY, expires_at=ends)
    short = table(keys={digest(SECRET): replace(KEY, expires_at=AT + timedelta(seconds=60))})
    assert ask(token(), short) == replace(KEY, expires_at=AT + timedelta(seconds=60))


def test_a_persons_token_counts_for_no_key_and_has_no_quotas() -> None:
    key = ask(token(sub="person:8", key=None, endpoints=[5]))
    assert isinstance(key, Key)
    assert (key.id, key.holder, key.quotas, key.endpoints) == (None, "person:8", None, frozenset({5}))
    assert authorise(key, ROUTE) is None


def test_a_token_narrows_what_its_key_may_call_and_never_widens_it() -> None:
    key = ask(token(endpoints=[5, 99]))
    assert isinstance(key, Key)
    assert key.endpoints == frozenset({5})
    wide = ask(token(), table(keys={digest(SECRET): replace(KEY, endpoints=None)}))
    assert isinstance(wide, Key)
    assert wide.endpoints is None


def test_a_token_ends_at_its_moment_also_when_it_was_let_in_before() -> None:
    known, one = table(), token()
    assert isinstance(ask(one, known), Key)
    assert refused(ask(one, known, AT + timedelta(seconds=900))) == (401, "expired_token")


def test_a_clock_half_a_minute_behind_is_borne_and_no_more() -> None:
    stamp = int(AT.timestamp())
    assert isinstance(ask(token(iat=stamp + 30)), Key)
    assert refused(ask(token(iat=stamp + 31))) == (401, "invalid_token")


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://elsewhere.example"}, {"aud": "another"}, {"aud": ["tir-gateway", "another"]},
        {"sub": "root:1"}, {"sub": "key:"}, {"project": "three"}, {"exp": None}, {"iat": None}, {"jti": None},
        {"scope": None}, {"exp": 1e40}, {"endpoints": ["tiny"]},
    ],
)  # fmt: skip
def test_a_signature_alone_is_not_enough(change: dict[str, Any]) -> None:
    assert refused(ask(token(**change))) == (401, "invalid_token")


def unsigned() -> str:
    return jwt.encode(said(), "", "none", headers={"kid": "k1"})


def confused() -> str:
    """The public key taken for an HMAC secret, by hand because the library won't."""
    return jwt.encode(said(), b"x" * 32, "HS256", headers={"kid": "k1"})


def changed() -> str:
    head, _, signature = token(sub="person:8").split(".")
    body = base64.urlsafe_b64encode(json.dumps(said(sub="person:9")).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize(
    "make",
    [unsigned, confused, changed, lambda: token(OTHER), lambda: "a.b.c", lambda: "..", lambda: token() + "A"],
)
def test_what_our_keys_did_not_sign_is_refused(make: Callable[[], str]) -> None:
    assert refused(ask(make())) == (401, "invalid_token")


def headed(**head: Any) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "EdDSA"} | head).encode()).rstrip(b"=").decode()
    return ".".join([header, *token().split(".")[1:]])


def test_a_token_of_an_unknown_signer_has_the_code_upon_which_keys_are_read_anew() -> None:
    assert refused(ask(token(OTHER, kid="k2"))) == (401, UNKNOWN_KEY)


@pytest.mark.parametrize("head", [{}, {"kid": None}, {"kid": 7}, {"kid": ["k1"]}, {"kid": "k1", "crit": ["b64"]}])
def test_a_token_that_names_no_signer_is_none(head: dict[str, Any]) -> None:
    assert refused(ask(headed(**head))) == (401, "invalid_token")


@pytest.mark.parametrize(
    ("claims", "after"),
    [
        ({}, table(keys={})),
        ({}, table(keys={digest(SECRET): replace(KEY, project_id=4)})),
        ({}, table(signers={})),
        ({"sub": "person:8"}, table(callers=frozenset())),
        ({"sub": "person:8"}, table(callers=frozenset({(8, 4)}))),
    ],
    ids=["key revoked", "key of another project", "signer forgotten", "member removed", "member elsewhere"],
)
def test_a_token_falls_with_what_it_stands_on(claims: dict[str, Any], after: RouteTable) -> None:
    one = token(**claims)
    assert isinstance(ask(one), Key)
    assert refused(ask(one, after)) == (401, UNKNOWN_KEY)


def test_a_token_is_proved_once_also_over_fresh_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = []
    prove = tokens._proved

    def counted(one: str, issuer: str, public: bytes) -> Any:
        proofs.append(one)
        return prove(one, issuer, public)

    monkeypatch.setattr(tokens, "_proved", counted)
    one, first, second = token(jti="once"), table(), table()
    for known in (first, first, second, second):
        assert isinstance(ask(one, known), Key)
    assert len(proofs) == 1
    for answer in (ask(token(OTHER)), ask(token(OTHER))):
        assert isinstance(answer, Refusal)
    assert len(proofs) == 3, "a wrong signature must not be remembered as right"


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_REMEMBERED", 3)
    monkeypatch.setattr("gateway.routes.MOST_REMEMBERED", 3)
    monkeypatch.setattr(tokens, "_remembered", {})
    known = table()
    for number in range(5):
        assert isinstance(ask(token(jti=str(number)), known), Key)
    assert len(known.believed) == len(tokens._remembered) == 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"project_id": 4}, "other_project"),
        ({"scopes": frozenset({"manage"})}, "missing_scope"),
        ({"endpoints": frozenset({6})}, "endpoint_not_allowed"),
        ({"endpoints": frozenset()}, "endpoint_not_allowed"),
    ],
)
def test_a_known_caller_may_still_be_forbidden(change: dict[str, Any], code: str) -> None:
    assert authorise(KEY, ROUTE) is None
    assert refused(authorise(replace(KEY, **change), ROUTE)) == (403, code)


def test_whose_quotas_they_are_is_said() -> None:
    assert Key(4, project_id=1).holder == "key:4"
    narrowed = ask(token(endpoints=[5]))
    assert isinstance(narrowed, Key)
    assert (narrowed.holder, narrowed.quotas) == ("account:9", Quotas(60))
