"""Bodies that a gateway writes along: of a sample, of endpoints that opted in, and of nobody else."""

import random
from pathlib import Path

import orjson
import pytest

from gateway import bodies as rules
from gateway import facts
from gateway.bodies import Bodies, Sampler
from gateway.ended import Ended
from gateway.passport import MOST_WITH_BODIES, Passports
from monitoring import bodies as wishes
from tests import make
from tests.gateway.engine import Engine
from tests.gateway.house import ASK, House, house
from tests.gateway.requests import ended


async def said(gateway: House) -> list[Ended]:
    keeper = gateway.app.keeper
    await keeper.flush()
    await keeper.remember(keeper.telemetry.flush_all)
    return [one.ended for one in gateway.store.passports.values()]


async def test_both_bodies_are_held_as_the_caller_saw_them(tmp_path: Path, engine: Engine) -> None:
    async with house(tmp_path, engine, bodies_one_in=1) as gateway:
        whole = await gateway.ask(max_tokens=5)
        stream = await gateway.ask(stream=True)
        wrong = await gateway.ask(model="other")
        found = [one.bodies for one in await said(gateway)]
    assert all(one is not None for one in found)
    sent = [(one.request, bytes(one.answer), one.streamed) for one in found if one is not None]
    assert [orjson.loads(request) for request, _, _ in sent] == [
        {**ASK, "max_tokens": 5}, {**ASK, "stream": True}, {**ASK, "model": "other"}
    ]  # fmt: skip
    assert [answer for _, answer, _ in sent] == [whole.content, stream.content, wrong.content]
    assert [streamed for _, _, streamed in sent] == [False, True, False]


async def test_nothing_is_held_of_an_endpoint_that_did_not_opt_in(gateway: House) -> None:
    await gateway.ask()
    assert [one.bodies for one in await said(gateway)] == [None]


async def test_no_more_than_ten_a_minute_are_held(tmp_path: Path, engine: Engine) -> None:
    async with house(tmp_path, engine, bodies_one_in=1) as gateway:
        gateway.app.gateway.meter.clock = lambda: 1_772_356_050.0
        for _ in range(rules.A_MINUTE + 3):
            await gateway.ask()
        assert sum(one.bodies is not None for one in await said(gateway)) == rules.A_MINUTE


def test_one_in_so_many_is_drawn() -> None:
    sampler = Sampler(draw=random.Random(7))
    count = sum(sampler.draws(40) for _ in range(4_000))
    assert 60 < count < 140


@pytest.mark.parametrize("extra", [0, 1])
def test_of_a_body_longer_than_the_limit_nothing_is_held(extra: int) -> None:
    found = Bodies()
    data = b"a" * (rules.LONGEST + extra)
    found.came(data)
    for at in range(0, len(data), 1000):
        found.went(data[at : at + 1000])
    assert (found.request, bytes(found.answer)) == ((b"", b"") if extra else (data, data))
    assert found.request_bytes == found.answer_bytes == len(data)


def test_while_the_database_is_away_the_newest_are_remembered_without_their_bodies() -> None:
    passports = Passports()
    every = []
    for number in range(MOST_WITH_BODIES + 50):
        one = Bodies()
        one.came(b"something")
        every.append(one)
        passports.fold([ended(endpoint=number, bodies=one)])
    assert len(passports) == MOST_WITH_BODIES + 50
    assert sum(bool(one.request) for one in every) == MOST_WITH_BODIES


@pytest.mark.django_db
def test_a_gateway_knows_who_opted_in() -> None:
    endpoint = make.endpoint(ready=1, name="tiny")
    assert facts.table().routes["tiny"].bodies_one_in == 0
    wishes.keep(endpoint, one_in=25, patterns=["x+"], by=make.user("alice"))
    assert facts.table().routes["tiny"].bodies_one_in == 25
