"""What an engine says of a pull or a build, heard beside: who waits for it can leave though it says nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from queue import Empty, Queue
from typing import Any

import docker
import requests
from docker.errors import DockerException
from urllib3.exceptions import HTTPError

TICK = 2.0  # seconds of silence after which it is asked whether anybody still waits
AHEAD = 1000  # events that may wait to be looked at

Event = dict[str, Any]
Begin = Callable[[docker.APIClient], Iterable[Event]]
BROKEN = (DockerException, requests.RequestException, HTTPError, OSError)


def heard(client: docker.APIClient, begin: Begin) -> Generator[Event]:
    """The events that it begins, with {} now and then while none comes. Raises what listening raised.

    The client is this work's own: closed with the iterator, which ends the work where it isn't done.
    """
    listener = _Listener(client, begin)
    listener.start()
    try:
        while True:
            try:
                event = listener.events.get(timeout=TICK)
            except Empty:
                event = {}
            if event is None:
                break
            yield event
        if listener.problem:
            raise listener.problem
    finally:
        listener.leave()


class _Listener(threading.Thread):
    """Ends with the work, or soon after it is left."""

    def __init__(self, client: docker.APIClient, begin: Begin) -> None:
        super().__init__(name="docker-listener", daemon=True)
        self.client, self.begin = client, begin
        self.events: Queue[Event | None] = Queue(AHEAD)
        self.problem: Exception | None = DockerException("what the engine said can't be understood")
        self._left = threading.Event()
        self._answers: list[requests.Response] = []
        client.hooks["response"].append(self._answered)

    def run(self) -> None:
        try:
            for event in self.begin(self.client):
                self.events.put(event)
            self.problem = None
        except BROKEN as problem:
            self.problem = problem
        finally:
            self.client.close()
            self.events.put(None)

    def leave(self) -> None:
        """Hang up. An engine that hasn't even begun to answer is hung up on when it does."""
        self._left.set()
        for answer in self._answers:
            _hang_up(answer)
        with suppress(Empty):  # it may be waiting for room
            while True:
                self.events.get_nowait()

    def _answered(self, answer: requests.Response, **_: Any) -> None:
        self._answers.append(answer)
        if self._left.is_set():
            _hang_up(answer)


def _hang_up(answer: requests.Response) -> None:
    """Its reader finds the end, and lets go of the connection."""
    with suppress(OSError, RuntimeError, ValueError):  # it has come to an end by itself
        answer.raw.shutdown()
