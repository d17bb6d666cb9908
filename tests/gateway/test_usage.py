"""What an answer came to, where engines say it each in their own way."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.usage import Usage, prompt_tokens, usage_of
from tests.gateway.caller import Script, says
from tests.gateway.house import house

USAGE = {"prompt_tokens": 777, "completion_tokens": 55, "total_tokens": 832}
FILLING = ["x" * 100] * 50_000  # 5 MB
VECTORS = [{"embedding": [0.123456789] * 1000}] * 500


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
