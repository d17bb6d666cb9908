"""Who is worked on with whom, and who is turned away."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from serving.models.base import BadInput, Reply
from serving.models.own import OwnModel
from serving.server import openai
from serving.server.batching import Batcher
from serving.server.errors import Wrong
from serving.server.metrics import Metrics
from serving.server.workers import Broken, Workers


class Work:
    """Doubles what it is given once it is let go; remembers each batch."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.began.set()
        assert self.go.wait(30)
        if len(items) > 1 and 13 in items:
            raise BadInput("unlucky")
        return [2 * one for one in items]


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.go.set()


def batcher(work: Any, *, most: int = 4, queue: int = 8, window: float = 0.005) -> Batcher:
    metrics = Metrics()
    return Batcher(Workers(1, queue, metrics), metrics, "predict", work, most=most, window=window)


async def begun(work: Work) -> None:
    """The first batch is in the only worker."""
    assert await asyncio.to_thread(work.began.wait, 30)


async def test_a_full_batch_waits_for_nobody(work: Work) -> None:
    work.go.set()
    assert await batcher(work, window=3600).all_of([1, 2, 3, 4]) == [2, 4, 6, 8]
    assert work.batches == [[1, 2, 3, 4]]


async def test_whoever_comes_while_the_worker_is_busy_goes_together(work: Work) -> None:
    gathering = batcher(work)
    first = asyncio.create_task(gathering.all_of([1]))
    await begun(work)
    others = [asyncio.create_task(gathering.all_of([one])) for one in (2, 3, 4)]
    await asyncio.sleep(0)
    work.go.set()
    assert [await one for one in (first, *others)] == [[2], [4], [6], [8]]
    assert work.batches == [[1], [2, 3, 4]]


async def test_an_item_whose_sender_left_is_not_worked_on(work: Work) -> None:
    gathering = batcher(work)
    first = asyncio.create_task(gathering.all_of([1]))
    await begun(work)
    leaving, staying = (asyncio.create_task(gathering.all_of([one])) for one in (2, 3))
    await asyncio.sleep(0)
    leaving.cancel()
    work.go.set()
    assert (await first, await staying) == ([2], [6])
    assert work.batches == [[1], [3]]


async def test_a_batch_that_fails_is_tried_one_by_one(work: Work) -> None:
    work.go.set()
    assert await batcher(work, most=3).all_of([1, 13, 2]) == [2, 26, 4]
    assert work.batches == [[1, 13, 2], [1], [13], [2]]


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, asyncio.CancelledError, ConnectionError])
async def test_whatever_a_model_raises_fails_its_own_item_and_nothing_else(raised: type[BaseException]) -> None:
    def picky(items: list[int]) -> list[int]:
        if 13 in items:
            raise raised
        return items

    async with asyncio.timeout(30):
        good, bad = await batcher(picky, most=2).all_of([1, 13])
    assert good == 1
    assert f"the model raised {raised.__name__}" in str(bad)


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, asyncio.CancelledError, ConnectionError])
async def test_whatever_a_chat_raises_its_client_is_told(raised: type[BaseException]) -> None:
    class Failing:
        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            raise ValueError if raised is StopIteration else raised  # which ends an iterator as it should

    def chat() -> str:
        raise raised

    workers = Workers(1, 1, Metrics())
    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError, match=f"the model raised {raised.__name__}"):
            await workers.call(chat)
        async with workers.stream(Failing) as stream:
            with pytest.raises(Broken):
                await stream.next(30)


async def test_more_than_may_wait_are_told_to_come_again(work: Work) -> None:
    gathering = batcher(work, most=1, queue=2)
    first = asyncio.create_task(gathering.all_of([1]))
    await begun(work)
    others = [asyncio.create_task(gathering.all_of([one])) for one in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Wrong, match="wait already") as caught:
        await gathering.all_of([4])
    assert caught.value.response().headers["Retry-After"] == "1"
    work.go.set()
    assert [await one for one in (first, *others)] == [[2], [4], [6]]


async def test_a_stream_runs_no_further_ahead_than_its_reader_lets_it() -> None:
    made: list[int] = []
    ahead = threading.Event()

    def pieces() -> Iterator[int]:
        for one in range(100):
            made.append(one)
            if one == 9:
                ahead.set()
            yield one

    async with Workers(1, 8, Metrics()).stream(pieces) as stream:
        assert await stream.next(30) == 0
        assert await asyncio.to_thread(ahead.wait, 30)
        assert len(made) == 10  # one is read, eight wait, and one can't be handed over
    workers = Workers(1, 8, Metrics())
    async with workers.stream(lambda: iter([1, "a"[1]])) as stream:  # raises where the iterator is made
        with pytest.raises(Broken):
            await stream.next(30)


def test_tokens_are_counted_by_the_folders_tokenizer_and_left_out_without(tmp_path: Path) -> None:
    class Model:
        def predict(self, inputs: list[Any]) -> list[Any]:
            return inputs

    assert OwnModel(Model(), str(tmp_path)).count_tokens("one two") is None
    assert openai.usage(Reply("a", prompt_tokens=None, completion_tokens=1)) == {}
    tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    assert OwnModel(Model(), str(tmp_path)).count_tokens("one two three") == 3
