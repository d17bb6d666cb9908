"""What an answer means for a request that was queued."""

from typing import Any

import orjson
import pytest

from gateway.jobs.judge import MOST_FAILURES, Again, Answer, End, judge

ASKED = b'{"messages":[{"role":"user","content":"12345678"}]}'


def judged(status: int | None, body: Any = None, *, failures: int = 0, **headers: str) -> End | Again:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = None if status is None else Answer(status, named, text)
    return judge(answer, asked=ASKED, failures=failures, revision_id=7)


def error(code: str | None) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "odd_error", "param": None, "code": code}}


def test_a_result_is_kept_as_it_came_with_the_engines_own_count() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    end = judged(200, body)
    assert isinstance(end, End)
    assert (end.state, end.answer, end.prompt, end.completion, end.estimated) == ("succeeded", body, 3, 4, False)
    assert end.revision_id == 7


def test_an_engine_that_counts_nothing_is_estimated() -> None:
    end = judged(200, {"choices": [{"message": {"content": "123456789"}}]})
    assert isinstance(end, End)
    assert (end.prompt, end.completion, end.estimated) == (2 + 1, 3, True)  # "user" counts, as for a caller


@pytest.mark.parametrize("status", [409, 429, 503])
def test_what_is_nobodys_fault_waits_without_end(status: int) -> None:
    found = judged(status, error("rate_limit_exceeded"), failures=MOST_FAILURES - 1, retry_after="7")
    assert isinstance(found, Again)
    assert (found.failed, found.code) == (False, "rate_limit_exceeded")
    assert 7 <= found.seconds < 9


def test_nobody_is_made_to_wait_for_an_hour_by_a_header() -> None:
    found = judged(429, error(None), retry_after="99999")
    assert isinstance(found, Again)
    assert found.seconds <= 75


@pytest.mark.parametrize(("status", "body"), [(None, b""), (500, error("boom")), (502, b"<html>"), (200, b"cut")])
def test_what_breaks_is_tried_again_a_few_times_and_then_is_the_end(status: int | None, body: Any) -> None:
    waits = []
    for failures in range(MOST_FAILURES - 1):
        again = judged(status, body, failures=failures)
        assert isinstance(again, Again)
        assert again.failed
        waits.append(again.seconds)
    assert waits == sorted(waits)
    end = judged(status, body, failures=MOST_FAILURES - 1)
    assert isinstance(end, End)
    assert end.state == "failed"
    assert set(orjson.loads(end.answer)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_refusal_is_the_end_in_the_words_it_came_in(status: int) -> None:
    end = judged(status, error("context_length_exceeded"))
    assert isinstance(end, End)
    assert (end.state, end.status, end.code) == ("failed", status, "context_length_exceeded")
    assert orjson.loads(end.answer) == error("context_length_exceeded")
    numbered = judged(status, {"error": {"message": "no", "type": "invalid_request_error", "code": status}})
    assert isinstance(numbered, End)
    assert numbered.code == "invalid_request_error", "a number is no word"
