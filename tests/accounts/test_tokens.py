"""Signed tokens over REST, their public keys, and service accounts over REST."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import jwt
import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiKey, ServiceAccount, SigningKey
from accounts.models.signing import AHEAD
from tests import make

pytestmark = pytest.mark.django_db
JWKS = "/.well-known/jwks.json"


def call(method: str, path: str, secret: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {secret}"}
    sent = json.dumps({} if body is None else body)
    return Client().generic(method, f"/api/v1{path}", sent, "application/json", headers=headers)


def proved(token: str) -> dict[str, Any]:
    """What a stranger who knows only the console's address learns from a token."""
    keys = jwt.PyJWKSet.from_dict(Client().get(JWKS).json())
    signer = keys[jwt.get_unverified_header(token)["kid"]]
    said: dict[str, Any] = jwt.decode(token, signer, ["EdDSA"], audience="tir-gateway")
    return said


def kids() -> list[str]:
    return [key["kid"] for key in Client().get(JWKS).json()["keys"]]


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────
def test_a_token_says_what_it_may_and_anybody_can_check_it() -> None:
    endpoint = make.endpoint(name="tiny")
    key, secret = make.key(endpoint.project)
    answer = call("POST", "/tokens", secret, {"endpoints": ["tiny"], "expires_in": 60})
    assert (answer.status_code, answer.json()["token_type"], answer.json()["expires_in"]) == (201, "Bearer", 60)
    said = proved(answer.json()["token"])
    assert (said["sub"], said["key"], said["project"]) == (f"key:{key.pk}", key.pk, endpoint.project_id)
    assert (said["endpoints"], said["scope"], said["exp"] - said["iat"]) == ([endpoint.pk], "inference", 60)
    assert datetime.fromisoformat(answer.json()["expires_at"]).timestamp() == said["exp"]
    usual = call("POST", "/tokens", secret).json()
    assert usual["expires_in"] == 900
    assert proved(usual["token"])["endpoints"] is None
    assert proved(usual["token"])["jti"] != said["jti"]


def test_a_token_never_outlives_its_key_and_begets_none() -> None:
    ends = timezone.now() + timedelta(seconds=90)
    _, secret = make.key(make.project(), expires_at=ends)
    answer = call("POST", "/tokens", secret, {"expires_in": 3600}).json()
    assert proved(answer["token"])["exp"] == int(ends.timestamp())
    assert call("POST", "/tokens", answer["token"]).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [({"expires_in": 59}, "expires_in"), ({"expires_in": 3601}, "expires_in"),
     ({"expires_in": "60"}, "expires_in"), ({"expires_in": None}, "expires_in"),
     ({"endpoints": ["nowhere"]}, "endpoints"), ({"endpoints": []}, "endpoints"),
     ({"endpoints": ["theirs"]}, "endpoints"), ({"endpoints": ["tiny", "other"]}, "endpoints"),
     ({"endpoints": ["tiny"] * 51}, "endpoints"), ({"scope": "manage"}, "scope")],
)  # fmt: skip
def test_what_a_token_cant_be_is_said_at_the_field(body: dict[str, Any], field: str) -> None:
    endpoint = make.endpoint(name="tiny")
    make.endpoint(endpoint.project, name="other")
    make.endpoint(make.project("Beta", make.user("charlie")), name="theirs")
    _, secret = make.key(endpoint.project, endpoint_ids=[endpoint.pk])
    answer = call("POST", "/tokens", secret, body)
    assert answer.status_code == 422
    assert list(answer.json()["error"]["fields"]) == [field]


def test_a_service_accounts_credential_may_ask_for_what_its_account_may() -> None:
    endpoint = make.endpoint(name="tiny")
    make.endpoint(endpoint.project, name="other")
    account, key, secret = ServiceAccount.open(endpoint.project, name="shop", by=None, endpoint_ids=[endpoint.pk])
    assert proved(call("POST", "/tokens", secret, {"endpoints": ["tiny"]}).json()["token"])["key"] == key.pk
    assert call("POST", "/tokens", secret, {"endpoints": ["other"]}).status_code == 422
    account.disable(at=timezone.now(), by=None)
    assert call("POST", "/tokens", secret).status_code == 401


# ── signing keys ─────────────────────────────────────────────────────────────────────────────────
def test_public_keys_are_for_everybody_and_may_be_kept_a_while() -> None:
    answer = Client().get(JWKS)
    assert (answer.status_code, answer.json()) == (200, {"keys": []})
    assert "public" in answer["Cache-Control"]
    assert "max-age=300" in answer["Cache-Control"]
    SigningKey.make(valid_from=timezone.now())
    (key,) = Client().get(JWKS).json()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}, "nothing private"


def test_the_private_half_is_sealed() -> None:
    made = SigningKey.make(valid_from=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("SELECT accounts_signingkey::text FROM accounts_signingkey")
        assert made.private().private_bytes_raw().hex() not in str(cursor.fetchall())


def test_a_rotation_is_announced_before_it_signs_and_believed_after() -> None:
    key, _ = make.key(make.project())
    now = timezone.now()
    token = tokens.for_key(key, at=now).token
    (old,) = kids()
    new = SigningKey.rotate(at=now).kid
    assert kids() == [old, new]
    for later, signer in ((AHEAD - timedelta(seconds=1), old), (AHEAD, new)):
        late = tokens.for_key(key, at=now + later).token
        assert jwt.get_unverified_header(late)["kid"] == signer
    assert proved(token)
    after = now + AHEAD + timedelta(hours=1)
    assert [one.kid for one in SigningKey.objects.published(after)] == [new]


def test_keys_that_became_known_are_forgotten_at_once() -> None:
    key, _ = make.key(make.project())
    tokens.for_key(key, at=timezone.now())
    (old,) = kids()
    out = StringIO()
    call_command("rotate_signing_key", "--now", stdout=out)
    (new,) = kids()
    assert new != old
    assert out.getvalue().startswith(new)
    signer = jwt.get_unverified_header(tokens.for_key(key, at=timezone.now()).token)["kid"]
    assert signer == new


def test_a_key_that_cant_be_opened_any_more_is_replaced(settings: Any) -> None:
    key, _ = make.key(make.project())
    before = tokens.for_key(key, at=timezone.now()).token
    settings.SECRET_KEY = "another" * 8
    after = tokens.for_key(key, at=timezone.now()).token
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(after)["kid"]
    assert proved(before)
    assert proved(after)


# ── service accounts over REST ───────────────────────────────────────────────────────────────────
def test_a_program_keeps_service_accounts_as_people_do() -> None:
    endpoint = make.endpoint(name="tiny")
    managing, manage = make.key(endpoint.project, "manage")
    made = call(
        "POST", "/service-accounts", manage, {"name": "shop", "endpoints": ["tiny"], "tokens_per_minute": 9}
    )
    assert made.status_code == 201
    first, account = made.json()["secret"], made.json()["account"]
    assert (account["name"], account["endpoints"], account["tokens_per_minute"]) == ("shop", ["tiny"], 9)
    rotated = call("POST", "/service-accounts/shop/rotate", manage, {"old_works_for": 3600, "expires_in_days": 30})
    second, credential = rotated.json()["secret"], rotated.json()["credential"]
    assert rotated.status_code == 201
    now = timezone.now()
    assert ApiKey.objects.matching(first, now + timedelta(minutes=59)) is not None
    assert ApiKey.objects.matching(first, now + timedelta(minutes=61)) is None
    assert ApiKey.objects.matching(second, now + timedelta(days=31)) is None
    changed = call("PATCH", "/service-accounts/shop", manage, {"requests_per_minute": 5, "endpoints": None}).json()
    assert (changed["endpoints"], changed["requests_per_minute"], changed["tokens_per_minute"]) == (None, 5, 9)
    shown = call("GET", "/service-accounts", manage)
    assert (shown.json()["total"], len(shown.json()["items"][0]["credentials"])) == (1, 2)
    for secret in (first, second):
        assert secret not in shown.content.decode()
    revoked = call("DELETE", f"/service-accounts/shop/credentials/{credential['id']}", manage).json()
    assert [one["state"] for one in revoked["credentials"]] == ["revoked", "active"]
    assert call("POST", "/service-accounts/shop/disable", manage).json()["disabled"] is True
    assert call("POST", "/service-accounts/shop/enable", manage).json()["disabled"] is False
    assert call("DELETE", "/service-accounts/shop", manage).status_code == 204
    assert ApiKey.objects.matching(first, now) is None
    assert endpoint.project.audit.filter(what__startswith="service.", who_text=str(managing)).count() == 7


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [({}, 422, "name"), ({"name": "The Shop"}, 422, "name"), ({"name": "shop\n"}, 422, "name"),
     ({"name": "taken"}, 409, "name"), ({"name": "shop", "endpoints": ["nowhere"]}, 422, "endpoints"),
     ({"name": "shop", "endpoints": []}, 422, "endpoints"),
     ({"name": "shop", "tokens_per_minute": 0}, 422, "tokens_per_minute"),
     ({"name": "shop", "concurrent_requests": 10**30}, 422, "concurrent_requests"),
     ({"name": "shop", "description": "x" * 201}, 422, "description"),
     ({"name": "shop", "expires_in_days": 0}, 422, "expires_in_days"),
     ({"name": "shop", "admin": 1}, 422, "admin")],
)  # fmt: skip
def test_what_an_account_cant_be_is_said_at_the_field(body: dict[str, Any], status: int, field: str) -> None:
    project = make.project()
    ServiceAccount.open(project, name="taken", by=None)
    answer = call("POST", "/service-accounts", make.key(project, "manage")[1], body)
    assert (answer.status_code, list(answer.json()["error"]["fields"])) == (status, [field])
    assert ServiceAccount.objects.count() == 1
