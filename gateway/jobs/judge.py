"""What an answer means for a queued request: its end, or another run later. Pure.

A limit, a full queue and an endpoint that isn't ready are no fault of anybody's: it waits. An instance that broke
off or failed is asked again a few times. Whatever else the instance or the gateway refuses is the end.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import envelope
from gateway.usage import delivered_chars, estimated, prompt_chars, usage_of

SUCCEEDED, FAILED = "succeeded", "failed"
MOST_FAILURES = 4  # runs that died, broke off or met a failing instance
WAIT = (409, 425, 429, 503)
LONGEST_WAIT = 60.0
SHORTEST_WAIT = 1.0


@dataclass(frozen=True)
class Answer:
    """What came back whole; `headers` in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class End:
    """`answer` is the engine's answer, or an error in OpenAI's shape; `revision_id` is of what answered."""

    state: str
    status: int | None
    answer: bytes
    code: str = ""
    prompt: int = 0
    completion: int = 0
    estimated: bool = False
    revision_id: int = 0


@dataclass(frozen=True)
class Again:
    """Not now, but in `seconds`; `failed` if that run counts as a failure."""

    seconds: float
    failed: bool
    status: int | None
    code: str


def judge(answer: Answer | None, *, asked: bytes, failures: int, revision_id: int) -> End | Again:
    """`answer` is None where nothing whole came back. `failures` are those of the runs before."""
    if answer is None:
        return _failed(BROKEN_OFF, failures)
    if answer.status in WAIT:
        return Again(_wait(answer), False, answer.status, _code(answer.body))
    if 200 <= answer.status < 300:
        found = _parsed(answer.body)
        if found is None:
            return _failed(NO_JSON, failures)
        usage = usage_of(found.get("usage")) or estimated(
            prompt_chars=prompt_chars(_parsed(asked) or {}), completion_chars=delivered_chars(found)
        )
        return End(
            SUCCEEDED,
            answer.status,
            answer.body,
            prompt=usage.prompt,
            completion=usage.completion,
            estimated=usage.estimated,
            revision_id=revision_id,
        )
    end = refused(answer.status, answer.body)
    return _failed(end, failures) if answer.status >= 500 else end


def refused(status: int, body: bytes) -> End:
    """The end by somebody's refusal, whose words are kept if they are in OpenAI's shape."""
    found = _parsed(body)
    if found is None or not isinstance(found.get("error"), dict):
        body = envelope(f"The gateway answered {status}.", type="upstream_error", param=None, code=None)
    return End(FAILED, status, body, _code(body))


def ending(status: int, code: str, message: str, *, kind: str = "upstream_error") -> End:
    return End(FAILED, status, envelope(message, type=kind, param=None, code=code), code)


def _failed(end: End, failures: int) -> End | Again:
    if failures + 1 >= MOST_FAILURES:
        return end
    return Again(_spread(SHORTEST_WAIT * 4 ** (failures + 1)), True, end.status, end.code)


def _wait(answer: Answer) -> float:
    """As long as the answer asks for, a little spread, so that all who wait don't come at once."""
    asked = answer.headers.get("retry-after", "")
    seconds = float(asked) if asked.isdecimal() else 2.0
    return _spread(min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT))


def _spread(seconds: float) -> float:
    return seconds * random.uniform(1.0, 1.25)  # noqa: S311 (a spread, not a secret)


def _code(body: bytes) -> str:
    found = _parsed(body) or {}
    error = found.get("error")
    words = [error.get("code"), error.get("type")] if isinstance(error, dict) else []  # engines put numbers there
    return next((word for word in words if isinstance(word, str)), "")


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


BROKEN_OFF = ending(502, "broken_off", "The answer broke off before it was whole, several times.")
NO_JSON = ending(502, "not_json", "The instance's answer is not JSON.")
TOO_LARGE = ending(502, "answer_too_large", "The answer is larger than is kept for a request that was queued.")
TOO_LONG = ending(504, "run_timeout", "The run took longer than a queued request may.")
KEY_GONE = ending(
    401,
    "key_revoked",
    "The API key or the person that asked for this may not call any more.",
    kind="authentication_error",
)
GONE = ending(500, "gave_up", "Every run of it ended with the process that ran it.", kind="server_error")
UNREADABLE = ending(
    500, "unreadable", "Its body can't be decrypted: the encryption keys have changed.", kind="server_error"
)
HOMELESS = ending(404, "endpoint_not_found", "The endpoint was deleted.", kind="invalid_request_error")
TOO_OLD = ending(504, "waited_too_long", "Its turn did not come within the time that results are kept.")
