"""Which requests are remembered, and that they reach the database once."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection

from accounts.models import ApiKey
from endpoints.models import Endpoint
from gateway import passport as memory
from gateway import remembered
from gateway.ended import Ended
from gateway.passport import Passport, Passports
from gateway.store import DatabaseStore
from monitoring import remembering as rules
from monitoring.models import RequestRecord
from tests import make
from tests.gateway.requests import AT, ended

START = AT - AT % 60  # of a minute


def chosen(*batches: list[Ended], at: float = START + 60) -> list[Passport]:
    passports = Passports()
    for batch in batches:
        passports.fold(batch)
    return passports.take(at)


def quick(count: int, **facts: Any) -> list[Ended]:
    return [ended(at=START + n % 60 / 2, ms=1, **facts) for n in range(count)]


def test_the_first_few_of_a_minute_are_remembered_at_once() -> None:
    found = chosen(quick(9), at=START + 5)
    assert [one.sample for one in found] == [True] * rules.FIRST


def test_of_many_one_in_a_thousand_is_remembered_and_no_more_than_a_number() -> None:
    assert sum(one.sample for one in chosen(quick(10_000))) == rules.FIRST + 10
    assert sum(one.sample for one in chosen(quick(rules.ONE_IN * (rules.SAMPLES + 9)))) == rules.SAMPLES


def test_the_slowest_are_known_once_their_minute_is_over() -> None:
    slow = [ended(at=START + n, ms=1000 + n, request_id=f"slow-{n}") for n in range(8)]
    passports = Passports()
    passports.fold([*quick(500), *slow, *quick(500)])
    assert not any(one.slow for one in passports.take(START + 59))
    found = [one.ended.request_id for one in passports.take(START + 60) if one.slow]
    assert sorted(found) == [f"slow-{n}" for n in range(3, 8)]
    assert passports.take(START + 600) == []


def test_the_next_minute_ends_the_one_before_and_has_slowest_of_its_own() -> None:
    found = chosen([ended(at=START, ms=900), ended(at=START + 61, ms=5)], at=START + 61)
    assert sorted((one.slow, one.ended.record.latency_us) for one in found) == [(False, 5_000), (True, 900_000)]


def test_at_the_end_of_the_process_the_running_minute_counts_as_over() -> None:
    passports = Passports()
    passports.fold([ended(at=START + 1)])
    assert [one.slow for one in passports.take_all()] == [True]


def test_a_flood_of_one_error_hides_no_other_and_no_other_endpoints() -> None:
    flood = quick(5_000, status=429, code="rate_limited")
    lost = [ended(502, at=START + 30, code="upstream_lost"), ended(500, at=START + 30, endpoint=6)]
    found = chosen(quick(4), flood, lost, at=START + 30)
    kinds = Counter((one.ended.record.endpoint_id, one.ended.record.status) for one in found if not one.sample)
    assert kinds == {(5, 429): rules.ERRORS_OF_A_KIND, (5, 502): 1}
    assert [one.ended.record.endpoint_id for one in found].count(6) == 1  # its first, which is a sample too


def test_errors_of_all_kinds_together_have_a_bound_too() -> None:
    many = [ended(400 + n, at=START, ms=1) for n in range(99) for _ in range(5)]
    found = chosen(quick(4), many, at=START + 1)
    assert sum(one.ended.record.status >= 400 for one in found) == rules.ERRORS


def test_a_request_that_turns_out_slow_keeps_the_passport_it_has() -> None:
    passports = Passports()
    passports.fold([ended(500, at=START, ms=800)])
    first = passports.take(START + 1)
    again = passports.take(START + 60)
    assert [one.id for one in first] == [one.id for one in again]
    assert again[0].slow


def test_a_database_that_is_away_costs_a_bounded_memory_and_what_was_lost_is_counted() -> None:
    passports = Passports()
    count = 0
    for minute in range(400):
        passports.fold([ended(500, at=START + 60 * minute, endpoint=n) for n in range(20)])
        taken = passports.take(START + 60 * minute)
        passports.put_back(taken)
        count = max(count, len(passports))
    assert count == memory.MOST
    assert passports.dropped > 0


# ── in the database ──────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def called(transactional_db: None) -> tuple[Endpoint, ApiKey]:
    endpoint = make.endpoint(ready=1, name="tiny")
    return endpoint, make.key(endpoint.project)[0]


def of(called: tuple[Endpoint, ApiKey], **facts: Any) -> Ended:
    endpoint, key = called
    known = {"endpoint": endpoint.pk, "revision_id": endpoint.serving_revision_id, "key_id": key.pk} | facts
    return ended(**known)


@pytest.mark.django_db(transaction=True)
def test_a_passport_says_in_the_database_what_was_known(called: tuple[Endpoint, ApiKey]) -> None:
    one = of(
        called, status=503, code="cold_start_timeout", cold=True, queue_us=30, connect_us=20, first_byte_us=900,
        ttft_us=950, prompt_tokens=3, estimated=True, bytes_in=8, instance="tiny-0", stream=True,
        path="v1/chat/completions?key=tir_01234567_abcdefghijklmnopqrstuvwxyz",
    )  # fmt: skip
    remembered.write([Passport(one, sample=True)])
    row = RequestRecord.objects.get()
    assert (row.request_id, row.status, row.code) == ("r-1", 503, "cold_start_timeout")
    assert (row.method, row.path, row.instance) == ("POST", "/v1/chat/completions", "tiny-0")
    assert (row.queue_us, row.connect_us, row.first_byte_us, row.ttft_us) == (30, 20, 900, 950)
    assert (row.total_us, row.prompt_tokens, row.estimated, row.request_bytes) == (20_000, 3, True, 8)
    assert (row.cold_start, row.stream, row.sample, row.slow) == (True, True, True, False)
    assert (row.at.timestamp(), row.key_id) == (AT, called[1].pk)


@pytest.mark.django_db(transaction=True)
def test_writing_again_changes_only_that_it_was_slow(called: tuple[Endpoint, ApiKey]) -> None:
    passport = Passport(of(called))
    for slow in (False, False, True):
        passport.slow = slow
        remembered.write([passport])
    assert RequestRecord.objects.get().slow


@pytest.mark.django_db(transaction=True)
def test_two_calls_may_have_one_request_id(called: tuple[Endpoint, ApiKey]) -> None:
    remembered.write([Passport(of(called)), Passport(of(called))])
    assert RequestRecord.objects.filter(request_id="r-1").count() == 2


@pytest.mark.django_db(transaction=True)
def test_what_is_gone_does_not_hold_back_the_others(called: tuple[Endpoint, ApiKey]) -> None:
    no_key, no_endpoint = of(called, key_id=999_999), of(called, endpoint=999_999)
    remembered.write([Passport(no_endpoint), Passport(no_key), Passport(of(called, key_id=0))])
    assert [row.key_id for row in RequestRecord.objects.all()] == [None, None]


@pytest.mark.parametrize(("days", "rows"), [(7, 1), (0, 0)])
async def test_the_store_remembers_where_the_installation_does(
    called: tuple[Endpoint, ApiKey], settings: LazySettings, days: int, rows: int
) -> None:
    settings.REQUEST_RECORD_DAYS = days
    store = DatabaseStore()
    await store.flush_passports([Passport(of(called))])
    await store.close()
    assert await asyncio.to_thread(counted) == rows


def counted() -> int:
    try:
        return RequestRecord.objects.count()
    finally:
        connection.close()
