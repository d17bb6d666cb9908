"""A stream may be cut anywhere: what the caller gets and what is counted must not depend on where."""

import itertools
import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse import EventFilter
from gateway.usage import Usage

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}


def event(chunk: object, ending: str = "\n") -> bytes:
    return f"data: {orjson.dumps(chunk).decode()}{ending}{ending}".encode()


def said(text: str, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}], **more}


STREAM = (
    b": a comment\n\n"
    + event(said("Hé"), "\r\n")
    + b"event: note\ndata: plain text\n\n"
    + event(said("llo", usage=None))
    + event(said("!", usage=USAGE))
    + event({"choices": [], "usage": USAGE})
    + b"data: [DONE]\n\n"
)


def through(parts: list[bytes], *, keep: bool) -> tuple[bytes, EventFilter]:
    events = EventFilter(keep_usage=keep)
    out = b"".join([events.feed(part) for part in parts])
    return out + events.close(), events


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % len(data) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(st.integers(min_value=0, max_value=10_000), max_size=40), st.booleans())
def test_where_reads_are_cut_changes_nothing(places: list[int], keep: bool) -> None:
    whole, one = through([STREAM], keep=keep)
    parts, many = through(cut(STREAM, places), keep=keep)
    assert parts == whole
    assert (many.usage, many.events, many.chars, many.done) == (one.usage, one.events, one.chars, one.done)


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_no_bytes_at_all_can_break_it(parts: list[bytes]) -> None:
    through(parts, keep=False)


@pytest.mark.parametrize("together", [1, 2, 500])
def test_a_stream_without_end_is_not_kept(together: int) -> None:
    events, part = EventFilter(keep_usage=False), event(said("word " * 20))
    tracemalloc.start()
    try:
        for _ in range(10_000 // together):
            data = part * together
            if not events.passes(data):
                events.feed(data)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < len(part) * 10_000 / 10
    assert events.chars == 10_000 * 100


def test_byte_by_byte_it_is_the_same() -> None:
    assert through([bytes([byte]) for byte in STREAM], keep=False)[0] == through([STREAM], keep=False)[0]


def test_who_asked_for_usage_gets_every_byte_as_it_came() -> None:
    assert through([STREAM], keep=True)[0] == STREAM


def test_who_did_not_ask_sees_no_usage_and_everything_else_as_it_came() -> None:
    out, events = through([STREAM], keep=False)
    assert b"usage" not in out
    assert events.usage == Usage(9, 4)
    expected = [said("llo"), said("!")]
    untouched = STREAM[: STREAM.index(event(said("llo", usage=None)))]
    assert out == untouched + b"".join(map(event, expected)) + b"data: [DONE]\n\n"


def test_usage_that_rides_on_a_chunk_with_choices_counts_and_the_text_passes() -> None:
    out, events = through([event(said("x", usage=USAGE))], keep=False)
    assert out == event(said("x"))
    assert events.usage == Usage(9, 4)


def test_text_reasoning_and_tool_calls_are_all_delivered_text() -> None:
    delta = {
        "content": "four",
        "reasoning_content": "think",
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
    }
    _, events = through([event({"choices": [{"delta": delta}, {"text": "old"}]})], keep=False)
    assert events.chars == 4 + 5 + 3 + 3


def test_an_event_whose_blank_line_never_came_is_completed() -> None:
    out, events = through([b'data: {"choices":[]}\n'], keep=False)
    assert out == b'data: {"choices":[]}\n\n'
    assert events.events == 1


def test_nothing_follows_an_error_not_even_done() -> None:
    stream = event({"error": {"message": "no", "code": 503}}) + event(said("x")) + b"data: [DONE]\n\n"
    out, events = through([stream], keep=False)
    assert out == event({"error": {"message": "no", "code": 503}})
    assert events.error is not None
    assert events.error.status == 503
    assert not events.done


@pytest.mark.parametrize("code", ["x" * 65, "no\0where"])
def test_a_code_that_could_not_be_remembered_is_not_taken(code: str) -> None:
    _, events = through([event({"error": {"message": "no", "code": code}})], keep=False)
    assert events.error is not None
    assert events.error.code == "upstream_error"


@pytest.mark.parametrize("error", ["plain words", {"code": "odd"}, {"message": 3}, 7])
def test_an_error_of_any_shape_becomes_a_message(error: object) -> None:
    _, events = through([event({"error": error})], keep=False)
    assert events.error is not None
    assert events.error.status == 502
    assert events.error.message


def test_data_over_several_lines_is_one_event() -> None:
    _, events = through([b'data: {"choices": [],\ndata: "usage": null}\n\n'], keep=False)
    assert events.events == 1


def test_an_event_without_end_is_given_up_and_not_gathered_for_ever() -> None:
    events = EventFilter(keep_usage=False)
    endless = iter([b"data: " + b"x" * 2**20] * 10)
    with pytest.raises(ValueError, match="longer than 8 MiB"):
        b"".join(map(events.feed, endless))


@pytest.mark.parametrize("number", [-1, "9", True, 2**63])
@pytest.mark.parametrize("of", ["prompt_tokens", "completion_tokens"])
def test_a_number_of_tokens_that_makes_no_sense_is_not_believed(of: str, number: object) -> None:
    _, events = through([event({"choices": [], "usage": {"prompt_tokens": 1, of: number}})], keep=True)
    assert events.usage is None


@pytest.mark.parametrize("usage", [[], 3])
def test_a_usage_that_makes_no_sense_is_not_believed(usage: object) -> None:
    _, events = through([event({"choices": [], "usage": usage})], keep=True)
    assert events.usage is None


def test_the_responses_api_says_its_usage_in_its_last_event() -> None:
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    stream = event({"type": "response.output_text.delta", "delta": "Hello"})
    stream += event({"type": "response.completed", "response": {"usage": usage}})
    out, events = through([stream], keep=False)
    assert out == stream
    assert (events.usage, events.chars) == (Usage(9, 4), 5)


def test_text_that_nobody_counted_is_counted_once_no_usage_came() -> None:
    parts = [event(said("word " * 100)) for _ in range(200)]
    _, events = through(parts, keep=False)
    assert events.chars == events.chars == 200 * 500
