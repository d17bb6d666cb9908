"""A running gateway's metrics, log and passports: what one call leaves in each of them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.access_log import AccessLog, Mode, to
from gateway.callers import address_of
from gateway.telemetry import Options
from tests.gateway.caller import once
from tests.gateway.engine import Engine
from tests.gateway.house import ASK, House, house, until


async def scraped(gateway: House) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await gateway.call.get("/metrics", headers={"authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def of(page: dict[Any, float], name: str, **labels: str) -> float:
    return page[name, frozenset(labels.items())]


async def test_a_scrape_counts_what_ended_a_moment_ago(gateway: House) -> None:
    await gateway.ask()
    await gateway.ask(stream=True)
    await gateway.ask(model="other")
    page = await scraped(gateway)
    assert of(page, "tir_gateway_requests_total", endpoint="tiny", status="2xx") == 2
    assert of(page, "tir_gateway_refusals_total", endpoint="tiny", code="model_not_found") == 1
    assert of(page, "tir_gateway_time_to_first_token_seconds_count", endpoint="tiny") == 1
    assert of(page, "tir_gateway_tokens_total", endpoint="tiny", kind="prompt") == 22
    assert of(page, "tir_gateway_in_flight_requests", endpoint="tiny", instance="tiny-0") == 0
    assert of(page, "tir_gateway_connections") == 1
    assert of(page, "tir_gateway_failing", duty="routes") == 0
    assert of(page, "tir_gateway_event_loop_lag_seconds_count") > 0
    again = await scraped(gateway)
    assert of(again, "tir_gateway_requests_total", endpoint="tiny", status="2xx") == 2


async def test_calls_that_never_became_an_endpoints_are_counted_by_what_was_wrong(gateway: House) -> None:
    for path, key in (
        ("/e/tiny/v1/models", "Bearer no"),
        ("/e/tiny/v1/models", ""),
        ("/nowhere", ""),
        ("/e/no/x", ""),
    ):
        await gateway.call.get(path, headers={"authorization": key})
    await gateway.call.get("/e/no/v1/models")
    await once(gateway, b"nonsense\r\n\r\n")
    page = (await gateway.call.get("/metrics", headers={"authorization": ""})).text
    counted = {
        family.split('"')[1]: float(number)
        for family, _, number in (line.partition(" ") for line in page.splitlines())
        if family.startswith("tir_gateway_rejected_calls_total")
    }
    wrong = {"invalid_api_key": 1, "missing_api_key": 2, "unknown_url": 1, "endpoint_not_found": 1}
    assert counted == wrong | {"invalid_request": 1}
    assert gateway.records == []


async def test_metrics_are_for_this_machine_until_a_token_opens_them(gateway: House) -> None:
    behind = {"x-forwarded-for": "203.0.113.9", "authorization": ""}
    assert (await gateway.call.get("/metrics", headers=behind)).status_code == 403
    assert (await gateway.call.post("/metrics")).status_code == 405
    gateway.app.keeper.telemetry.metrics.token = b"s3cret"
    assert (await gateway.call.get("/metrics")).status_code == 401
    told = {**behind, "authorization": "Bearer s3cret"}
    assert (await gateway.call.get("/metrics", headers=told)).status_code == 200


async def test_calls_are_remembered_once_the_counts_are_written(gateway: House) -> None:
    await gateway.ask()
    await gateway.call.post("/e/tiny/v1/chat/completions", content=b"{", headers={"x-request-id": "mine"})
    keeper = gateway.app.keeper
    gateway.store.away = True
    await keeper.flush()
    await keeper.remember(keeper.telemetry.flush)
    assert "Remembering requests" in keeper.health()[1]["degraded"]
    gateway.store.away = False
    await keeper.flush()
    await keeper.remember(keeper.telemetry.flush)
    assert "Remembering requests" not in keeper.health()[1]["degraded"]
    found = {one.ended.request_id: one.ended for one in gateway.store.passports.values()}
    assert (found["mine"].record.status, found["mine"].code) == (400, "invalid_json")
    assert (found["mine"].path, found["mine"].instance) == ("v1/chat/completions", "")
    good = next(one for name, one in found.items() if name != "mine")
    assert (good.record.status, good.instance, good.method) == (200, "tiny-0", "POST")
    assert 0 < (good.first_byte_us or 0) <= good.record.latency_us


async def test_the_last_ones_are_remembered_when_it_ends(tmp_path: Path, engine: Engine) -> None:
    async with house(tmp_path, engine) as gateway:
        await gateway.ask()
    assert [one.slow for one in gateway.store.passports.values()] == [True]


@pytest.mark.parametrize("mode", [Mode.ERRORS, Mode.ALL])
async def test_the_log_of_a_gateway_that_ended_is_whole(tmp_path: Path, engine: Engine, mode: Mode) -> None:
    path = tmp_path / "access.log"
    async with house(tmp_path / "spool", engine) as gateway:
        gateway.app.keeper.telemetry.log = AccessLog(mode, to(str(path)))
        await gateway.ask()
        await gateway.ask(model="other")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["status"] for line in lines] == ([404] if mode == Mode.ERRORS else [200, 404])
    assert {line["endpoint"] for line in lines} == {"tiny"}
    assert "Say something" not in path.read_text()


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        (None, 0, "127.0.0.1"),
        ("203.0.113.9", 0, "127.0.0.1"),  # anybody may say so
        ("203.0.113.9", 1, "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", 1, "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9,10.0.0.2", 2, "203.0.113.9"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("<script>", 1, "127.0.0.1"),
        (None, 1, "127.0.0.1"),
    ],
)
def test_a_caller_is_where_the_last_trusted_proxy_saw_it(
    forwarded: str | None, proxies: int, address: str
) -> None:
    given = None if forwarded is None else forwarded.encode()
    assert address_of("127.0.0.1", given, proxies=proxies) == address


async def test_addresses_are_logged_where_that_was_wished_even_of_a_caller_that_left(
    tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / "access.log"
    options = Options(access_log=Mode.ALL, access_log_file=str(path), addresses=True, proxies=1)
    engine.behaviour = "hang"
    async with house(tmp_path / "spool", engine, telling=options) as gateway:
        url = "/e/tiny/v1/chat/completions"
        await gateway.call.post(url, json={**ASK, "model": "other"}, headers={"x-forwarded-for": "203.0.113.9"})
        leaving = asyncio.create_task(gateway.call.post(url, json=ASK))
        await until(lambda: engine.open == 1, "the engine to be asked")
        leaving.cancel()
        await gateway.settled(2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["status"], line["address"]) for line in lines] == [(404, "203.0.113.9"), (499, "127.0.0.1")]
