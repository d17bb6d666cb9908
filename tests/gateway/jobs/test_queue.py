"""The queue: who gets what and for how long, and that a result is billed once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.db import connections
from django.db.models.functions import Now
from django.utils import timezone

from accounts.refused import Refused
from gateway.jobs import queue, retention
from gateway.jobs.judge import MOST_FAILURES, SUCCEEDED, TOO_OLD, Again, End
from gateway.jobs.models import AsyncRequest, State, Told
from monitoring.models import KeyTraffic
from tests import make
from tests.gateway.jobs.harness import World, world

AGAIN = Again(60.0, True, 502, "broken_off")


@pytest.fixture
def here(db: None) -> World:
    return world()


def submitted(here: World, *, body: bytes = b"{}", **more: Any) -> AsyncRequest:
    return AsyncRequest.submit(
        project_id=here.endpoint.project_id,
        endpoint_id=here.endpoint.pk,
        key_id=here.key.pk,
        path="v1/chat/completions",
        body=body,
        **more,
    )[0]


def claimed(here: World, capacity: int = 100, busy: int = 0) -> list[queue.Run]:
    return queue.claim(here.endpoint.pk, capacity=capacity, busy=busy)


def forget(run: queue.Run) -> None:
    """Its runner died, and the lease has run out."""
    AsyncRequest.objects.filter(pk=run.pk).update(lease_until=Now() - timedelta(seconds=1))


def done(here: World) -> End:
    revision = here.endpoint.serving_revision_id or 0
    return End(SUCCEEDED, 200, b'{"choices":[]}', prompt=3, completion=4, revision_id=revision)


def billed(here: World) -> int:
    return sum(row.requests for row in KeyTraffic.objects.filter(endpoint=here.endpoint, key=here.key))


class TestClaims:
    def test_the_oldest_come_first_and_no_more_than_there_is_room_for(self, here: World) -> None:
        first, second, third = (submitted(here, body=b"%d" % number).pk for number in range(3))
        taken = claimed(here, capacity=5, busy=3)
        assert [(run.pk, run.body) for run in taken] == [(first, b"0"), (second, b"1")]
        assert claimed(here, capacity=2) == []  # two run
        assert [run.pk for run in claimed(here, capacity=3)] == [third]

    def test_nothing_is_taken_while_callers_fill_the_endpoint(self, here: World) -> None:
        submitted(here)
        assert claimed(here, capacity=4, busy=4) == []
        assert queue.waiting()[here.endpoint.pk] == queue.Waiting(claimable=1, running=0)

    def test_what_was_given_back_comes_when_it_is_due(self, here: World) -> None:
        submitted(here)
        (run,) = claimed(here)
        assert queue.give_back(run, AGAIN)
        assert claimed(here) == []
        assert queue.waiting() == {}
        AsyncRequest.objects.update(due_at=Now())
        (again,) = claimed(here)
        assert again.failures == 1

    @pytest.mark.parametrize(("status", "left"), [(429, ["other"]), (503, [])], ids=["its key", "the endpoint"])
    def test_what_would_meet_the_same_is_not_tried_meanwhile(
        self, here: World, status: int, left: list[str]
    ) -> None:
        """A thousand requests behind one limit must not be a thousand refusals a minute."""
        other = World(here.endpoint, *make.key(here.endpoint.project))
        submitted(here), submitted(here), submitted(other, body=b"other")
        (run,) = claimed(here, capacity=1)
        queue.give_back(run, Again(60.0, False, status, "refused"))
        assert [taken.body.decode() for taken in claimed(here)] == left

    def test_a_body_is_not_to_be_read_in_the_database_and_goes_with_the_end(self, here: World) -> None:
        submitted(here, body=b'{"messages":"a secret"}', webhook="https://hook.test/?token=hidden")
        row = AsyncRequest.objects.get()
        assert b"secret" not in bytes(row.body or b"")
        assert b"hidden" not in bytes(row.webhook or b"")
        (run,) = claimed(here)
        queue.finish(run, done(here))
        row.refresh_from_db()
        assert row.body is None
        assert b"choices" not in bytes(row.answer or b"")

    def test_one_that_no_key_opens_any_more_fails_and_says_so(self, here: World, settings: Any) -> None:
        submitted(here)
        settings.ENCRYPTION_KEYS = []
        settings.SECRET_KEY = "another" * 10
        assert claimed(here) == []
        assert AsyncRequest.objects.get().error_code == "unreadable"


class TestTakeover:
    def test_a_dead_runners_request_is_taken_over_and_billed_once(self, here: World) -> None:
        submitted(here)
        (dead,) = claimed(here)
        assert claimed(here) == []
        forget(dead)
        (heir,) = claimed(here)
        assert (heir.failures, AsyncRequest.objects.get().attempts) == (1, 2)
        assert queue.finish(heir, done(here))
        assert not queue.finish(dead, done(here)), "it was not dead but slow: its result is nobody's"
        assert not queue.give_back(dead, AGAIN)
        assert AsyncRequest.objects.get().state == State.SUCCEEDED
        assert billed(here) == 1

    @pytest.mark.parametrize("late", [False, True], ids=["before it was taken over", "after it was taken over"])
    def test_who_comes_late_stores_only_what_is_still_its_own(self, here: World, late: bool) -> None:
        submitted(here)
        (slow,) = claimed(here)
        forget(slow)
        if late:
            claimed(here)
        assert queue.finish(slow, done(here)) is not late
        assert billed(here) == (0 if late else 1)

    def test_one_that_kills_all_who_run_it_ends(self, here: World) -> None:
        submitted(here)
        for _ in range(MOST_FAILURES + 1):
            for run in claimed(here):
                forget(run)
        row = AsyncRequest.objects.get()
        assert (row.state, row.error_code, row.attempts) == (State.FAILED, "gave_up", MOST_FAILURES)
        assert billed(here) == 0

    def test_a_lease_is_prolonged_and_a_cancelled_one_is_not(self, here: World) -> None:
        one, two = submitted(here), submitted(here)
        first, second = claimed(here)
        AsyncRequest.objects.update(lease_until=Now() + timedelta(seconds=1))
        assert two.cancel(by="Alice")
        assert queue.renew([first.token, second.token]) == {first.token}
        one.refresh_from_db()
        assert one.lease_until is not None
        assert one.lease_until > timezone.now() + timedelta(seconds=20)
        assert not queue.finish(second, done(here))
        assert billed(here) == 0

    def test_whatever_ends_without_a_result_is_not_billed(self, here: World) -> None:
        submitted(here)
        (run,) = claimed(here)
        assert queue.finish(run, TOO_OLD)
        assert billed(here) == 0


@pytest.mark.django_db(transaction=True)
def test_runners_at_the_same_time_share_what_there_is_room_for() -> None:
    here = world()
    for _ in range(12):
        submitted(here)

    def grab(_: int) -> list[int]:
        try:
            return [run.pk for run in claimed(here, capacity=5)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        taken = [pk for pks in pool.map(grab, range(8)) for pk in pks]
    assert len(taken) == len(set(taken)) == 5


@pytest.mark.django_db(transaction=True)
def test_results_stored_at_the_same_time_are_all_billed() -> None:
    here = world()
    for _ in range(8):
        submitted(here)

    def store(run: queue.Run) -> bool:
        try:
            return queue.finish(run, End(SUCCEEDED, 200, b"{}", prompt=1, revision_id=revision))
        finally:
            connections.close_all()

    revision = here.endpoint.serving_revision_id or 0
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(store, claimed(here)))
    row = KeyTraffic.objects.get()
    assert (row.requests, row.prompt_tokens, row.source) == (8, 8, "async")


class TestIdempotency:
    def test_the_same_key_and_body_is_the_same_request(self, here: World) -> None:
        one = submitted(here, idempotency_key="k", idempotency_digest="a")
        assert submitted(here, idempotency_key="k", idempotency_digest="a") == one
        with pytest.raises(Refused, match="another body"):
            submitted(here, idempotency_key="k", idempotency_digest="b")
        assert submitted(here) != submitted(here)


class TestEstimate:
    def test_there_is_none_without_a_history(self, here: World) -> None:
        submitted(here)
        assert queue.estimate(here.endpoint.pk, lanes=4) is None

    def test_it_is_the_median_of_the_last_runs_times_the_turns_until_its_own_is_over(self, here: World) -> None:
        for seconds in (4, 10, 6):
            submitted(here)
            queue.finish(claimed(here)[0], done(here))
            newest = AsyncRequest.objects.filter(state=State.SUCCEEDED).latest("pk")
            at = timezone.now()
            AsyncRequest.objects.filter(pk=newest.pk).update(
                started_at=at - timedelta(seconds=seconds), finished_at=at
            )
        assert queue.estimate(here.endpoint.pk, lanes=2) == pytest.approx(6)
        for _ in range(3):
            submitted(here)
        assert queue.estimate(here.endpoint.pk, lanes=2) == pytest.approx(12)
        assert queue.estimate(here.endpoint.pk, lanes=0) is None


class TestRetention:
    @pytest.fixture
    def old(self, here: World) -> AsyncRequest:
        one = submitted(here, webhook="https://hook.test/", idempotency_key="k", idempotency_digest="d")
        queue.finish(claimed(here)[0], done(here))
        AsyncRequest.objects.update(told=Told.DELIVERED)
        one.refresh_from_db()
        return one

    def test_the_texts_go_after_their_hours_and_the_row_after_a_month(self, old: AsyncRequest) -> None:
        assert old.expires_at is not None
        assert old.finished_at is not None
        assert old.expires_at - old.finished_at == timedelta(hours=settings.ASYNC_RESULT_HOURS)
        retention.expire(at=old.expires_at - timedelta(seconds=1))
        old.refresh_from_db()
        assert orjson.loads(old.opened(old.answer) or b"") == {"choices": []}
        retention.expire(at=old.expires_at)
        old.refresh_from_db()
        assert (old.answer, old.webhook, old.idempotency_key) == (None, None, "")
        assert old.answer_bytes > 0
        retention.expire(at=old.finished_at + timedelta(days=31))
        assert not AsyncRequest.objects.exists()

    def test_one_still_being_delivered_ends_by_a_try_that_says_so(self, old: AsyncRequest) -> None:
        later = timezone.now() + timedelta(hours=20)
        AsyncRequest.objects.update(told=Told.WAITING, next_try_at=later, expires_at=timezone.now())
        retention.expire(at=timezone.now())
        old.refresh_from_db()
        assert old.answer is None
        assert old.webhook is not None
        assert old.next_try_at is not None
        assert old.next_try_at < later

    def test_one_whose_turn_never_comes_ends(self, here: World) -> None:
        submitted(here)
        retention.expire(at=timezone.now())
        assert AsyncRequest.objects.get().state == State.QUEUED
        retention.expire(at=timezone.now() + timedelta(hours=settings.ASYNC_RESULT_HOURS, seconds=1))
        row = AsyncRequest.objects.get()
        assert (row.state, row.error_code) == (State.FAILED, "waited_too_long")

    def test_those_of_a_deleted_endpoint_end_and_those_that_run_may_finish(self, here: World) -> None:
        submitted(here)
        (run,) = claimed(here)
        waits = submitted(here)
        here.endpoint.delete_endpoint(by=None)
        here.endpoint.__class__.objects.update(deleted_at=timezone.now())
        retention.expire(at=timezone.now())
        waits.refresh_from_db()
        assert (waits.state, waits.error_code) == (State.FAILED, "endpoint_not_found")
        assert queue.finish(run, done(here))
