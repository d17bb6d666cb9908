"""Signed tokens and allow-lists at a running gateway."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import core
from gateway.routes import RouteTable, digest
from gateway.tokens import Trust
from tests.gateway.engine import Engine
from tests.gateway.house import ALICE, ASK, KEYS, House, until

PRIVATE = Ed25519PrivateKey.generate()
TRUST = Trust("https://console.example", {"k1": PRIVATE.public_key().public_bytes_raw()}, frozenset({(8, 1)}))
CHAT = "/e/tiny/v1/chat/completions"


def token(**changes: Any) -> str:
    now = int(time.time())
    said = {"iss": TRUST.issuer, "aud": "tir-gateway", "sub": "key:1", "iat": now, "exp": now + 600, "jti": "j"}
    said |= {"project": 1, "key": 1, "endpoints": None, "scope": "inference"} | changes
    return jwt.encode(said, PRIVATE, "EdDSA", headers={"kid": "k1"})


def know(gateway: House, **changes: Any) -> None:
    """What the database says from now on; the gateway finds it when it reads again."""
    table = gateway.app.gateway.table
    keys = {digest(ALICE): replace(KEYS[digest(ALICE)], **changes)}
    gateway.store.table = RouteTable(table.routes.values(), keys, TRUST)


async def ask(gateway: House, bearer: str) -> tuple[int, str]:
    answer = await gateway.call.post(CHAT, json=ASK, headers={"authorization": f"Bearer {bearer}"})
    return answer.status_code, answer.json().get("error", {}).get("code", "")


async def test_a_token_of_a_signer_that_is_new_to_the_gateway_works_at_its_first_call(gateway: House) -> None:
    know(gateway)
    assert await ask(gateway, token()) == (200, "")
    assert (await gateway.settled())[0].key_id == 1


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_key_nobody_knows_is_refused_though_keys_cannot_be_read(
    gateway: House, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    async def load() -> None:
        if not hangs:
            raise RuntimeError("something is wrong with the code")
        await asyncio.Event().wait()

    gateway.store.load = load  # type: ignore[method-assign]
    monkeypatch.setattr(core, "LOOK_SECONDS", 0.3)
    assert await ask(gateway, "tir_new00000_secret") == (401, "invalid_api_key")


async def test_what_a_person_calls_is_recorded_without_a_key_and_marks_none_as_used(gateway: House) -> None:
    know(gateway)
    assert await ask(gateway, token(sub="person:8", key=None)) == (200, "")
    assert (await gateway.settled())[0].key_id is None
    await gateway.app.keeper.flush()
    assert gateway.store.used == {}
    assert [key[3] for key in gateway.store.quarters] == [None]


async def test_a_list_of_endpoints_holds_on_a_connection_that_called_before(gateway: House) -> None:
    assert await ask(gateway, ALICE) == (200, "")
    know(gateway, endpoints=frozenset({99}))
    gateway.store.rings.put_nowait(None)
    await until(lambda: gateway.app.gateway.table is gateway.store.table)
    assert await ask(gateway, ALICE) == (403, "endpoint_not_allowed")
    assert await ask(gateway, token()) == (403, "endpoint_not_allowed")


@pytest.mark.parametrize(("behaviour", "stream"), [("hang", False), ("hang after first", True)])
@pytest.mark.parametrize("revoked", [True, False])
async def test_a_key_that_is_revoked_ends_what_runs_and_its_own_end_does_not(
    gateway: House, engine: Engine, behaviour: str, stream: bool, revoked: bool
) -> None:
    engine.behaviour = behaviour
    asking = asyncio.create_task(gateway.ask(stream=stream))
    await until(lambda: engine.open == 1, "the engine to be asked")
    know(gateway, expires_at=datetime.now(UTC))
    if revoked:
        gateway.store.table = RouteTable(gateway.app.gateway.table.routes.values(), {}, TRUST)
        answer = await asking
        assert "invalid_api_key" in answer.text
        assert "[DONE]" not in answer.text
        assert answer.status_code == (200 if stream else 401)
        await until(lambda: engine.hung_up == 1, "the engine to be let go")
        assert [record.status for record in await gateway.settled()] == [401]
        assert not gateway.app.gateway.balancer.troubled, "the instance did nothing wrong"
    else:
        turn = gateway.app.gateway.turn
        await until(lambda: gateway.app.gateway.turn > turn + 1, "the key's end to be known")
        engine.hold.set()
        assert (await asking).status_code == 200
