"""Callers who ask without end and write down what came of each call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Self

import httpx

from tests.wait import until

CALLERS = 4
PAUSE = 0.3  # seconds between a caller's calls: the model computes for real, beside other tests
ASK = {"messages": [{"role": "user", "content": "Count to three."}], "max_tokens": 4}


@dataclass(frozen=True)
class Answer:
    """`whole`: a 200 with everything in it; for a stream, up to its [DONE]. Times are time.monotonic's."""

    began: float
    ended: float
    stream: bool
    whole: bool
    what: str


@dataclass
class Traffic:
    """`with Traffic(url, key) as traffic:` calls come from several callers at once, half of them for streams."""

    url: str
    key: str
    answers: list[Answer] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        assert self._thread
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def whole(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.whole]

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if not answer.whole]

    def goes_on(self, *, answers: int = 8, seconds: float = 30.0) -> None:
        """Wait until so many more whole answers have come."""
        goal = len(self.whole) + answers
        until(lambda: len(self.whole) >= goal, seconds=seconds, what=f"traffic to go on; {self.summary()}")

    def longest_silence(self, began: float, ended: float) -> float:
        """Seconds between two whole answers in this span, at the most."""
        times = [began, *sorted(one.ended for one in self.whole if began <= one.ended <= ended), ended]
        return max(after - before for before, after in pairwise(times))

    def summary(self) -> str:
        kinds = Counter(answer.what for answer in self.answers)
        return ", ".join(f"{count} × {what}" for what, count in kinds.most_common())

    async def _all(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as client:
            await asyncio.gather(*(self._ask(client, stream=bool(n % 2)) for n in range(CALLERS)))

    async def _ask(self, client: httpx.AsyncClient, *, stream: bool) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                answer = await client.post(self.url, json={**ASK, "stream": stream})
            except httpx.TransportError as problem:
                what, whole = type(problem).__name__, False
            else:
                what = str(answer.status_code)
                whole = answer.status_code == 200
                if whole and stream and not answer.text.rstrip().endswith("data: [DONE]"):
                    what, whole = "a stream without its end", False
                elif not whole:
                    what += f" {answer.text[:160]}"
            self.answers.append(Answer(began, time.monotonic(), stream, whole, what))
            # As a client that tries again, not a flood.
            await asyncio.sleep(PAUSE if whole else 0.05)


def unexcused(traffic: Traffic, kill: tuple[float, float]) -> list[Answer]:
    """The failures of calls that were not under way while an instance was killed, from before it to after it."""
    before, after = kill
    return [one for one in traffic.failed if one.ended < before or one.began > after]
