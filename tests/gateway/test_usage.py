"""What a request may come to, and what an answer came to, where engines say it each in their own way."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.rewrite import Prepared
from gateway.usage import Usage, prompt_tokens, usage_of
from tests.gateway.caller import Script, says
from tests.gateway.house import house

USAGE = {"prompt_tokens": 777, "completion_tokens": 55, "total_tokens": 832}
FILLING = ["x" * 100] * 50_000  # 5 MB
VECTORS = [{"embedding": [0.123456789] * 1000}] * 500


def may_come_to(limit: int, context: int = 0, **request: Any) -> int:
    body = orjson.dumps(request)
    return Prepared(body, request, stream=False, wants_usage=False).tokens(limit, context)


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        (USAGE, Usage(777, 55)),
        ({"input_tokens": 7, "output_tokens": 5}, Usage(7, 5)),
        ({"total_tokens": 56}, Usage(56, 0)),
        ({"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": None}, Usage(9, 0)),
        ({}, None),
    ],
)
def test_each_engines_way_to_say_it_is_read(said: dict[str, Any], usage: Usage | None) -> None:
    assert usage_of(said) == usage


def test_what_a_reranker_reads_is_never_nothing() -> None:
    assert prompt_tokens({"query": "x" * 40, "documents": ["y" * 40, {"text": "z" * 40}]}) == 30


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": "Hello."}, "logprobs": FILLING}], "usage": USAGE},  # at its end
        {"model": "tiny", "usage": USAGE | {"details": {"cached_tokens": 0}}, "data": VECTORS},  # before the data
    ],
)
@pytest.mark.parametrize("path", ["v1/chat/completions", "images"])
async def test_the_usage_of_a_very_long_answer_counts_wherever_it_stands(
    tmp_path: Path, path: str, answer: dict[str, Any]
) -> None:
    body = orjson.dumps(answer)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with Script(play=says(head, body)) as engine, house(tmp_path, engine, open=True) as gateway:
        got = await gateway.call.post(f"/e/tiny/{path}", json={"messages": []})
        assert got.content == body
        [record] = await gateway.settled()
        assert (record.prompt_tokens, record.completion_tokens, record.estimated) == (777, 55, False)


def test_several_answers_and_a_batch_of_prompts_are_reserved_whole() -> None:
    assert may_come_to(100, prompt="x" * 40, max_tokens=30) == 40
    assert may_come_to(100, prompt="x" * 40, max_tokens=30, n=3) == 100
    assert may_come_to(100, prompt=["x" * 40, "y" * 40], max_tokens=30) == 80
    assert may_come_to(100, prompt=[7, 8, 9], max_tokens=30) == 33  # one, in tokens already


def test_each_context_holds_so_much_and_a_batch_fills_many() -> None:
    assert may_come_to(100, 64, messages=[{"role": "user", "content": "x"}], max_tokens=10**9) == 64
    assert may_come_to(100, 64, input=["x" * 4000] * 3) == 3 * 64
    assert may_come_to(100, 64, query="x", documents=["y" * 4000] * 5) == 5 * 64


def test_millions_of_pieces_are_not_all_looked_at() -> None:
    assert prompt_tokens({"prompt": [7] * 3_000_000}) < 1_000_000
    assert may_come_to(100, 64, prompt=[7] * 3_000_000) == 64


def test_where_there_is_no_limit_nothing_is_added_up() -> None:
    assert Prepared(b"{}", {"max_tokens": 9}, stream=False, wants_usage=False).tokens(None) == 0
