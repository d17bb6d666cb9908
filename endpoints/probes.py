"""Asking an instance whether it serves: /health, the model list, and one real one-token call."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from endpoints.planner import Probe

HEALTH_TIMEOUT = 2.0  # seconds
CALL_TIMEOUT = 60.0
CALLED = frozenset({"chat", "completions", "embeddings"})  # capabilities that one real call can prove
Clock = Callable[[], datetime]
Prober = Callable[["Asked", Clock], Probe]  # `probe`, or what a test or benchmark puts in its place


class Wrong(Exception):
    """The instance answered, and not as it should; the text says how."""


@dataclass(frozen=True)
class Asked:
    """One instance to probe. `prove`: also list the model and make one real call, as before its first traffic.

    Of what is not `ours` nothing is known but its health path: that it says it is healthy has to do.
    """

    name: str
    address: str
    alias: str
    prove: bool
    health_path: str = "/health"
    ours: bool = True


class Hurried(socket.socket):
    """One that is given up after so many seconds, however much still drips out of it."""

    def __init__(self, plain: socket.socket, seconds: float) -> None:
        super().__init__(fileno=plain.detach())
        self.ends = time.monotonic() + seconds
        self.settimeout(seconds)

    def recv_into(self, *given: Any, **named: Any) -> int:
        """As any socket's, within the time that is left."""
        if (left := self.ends - time.monotonic()) <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(*given, **named)


def probe(asked: Asked, clock: Clock) -> Probe:
    """What it answered. Never raises: an instance that can't be reached is an answer too."""
    try:
        _ask(asked.address, "GET", asked.health_path, timeout=HEALTH_TIMEOUT)
    except (OSError, http.client.HTTPException, Wrong) as problem:
        return Probe(healthy_at=None, message=f"{asked.address}{asked.health_path}: {_words(problem)}")
    healthy_at = clock()
    if asked.prove and not asked.ours:
        return Probe(healthy_at=healthy_at, works=True, works_at=healthy_at)
    if not asked.prove:
        return Probe(healthy_at=healthy_at)
    try:
        _prove(asked)
    except (OSError, http.client.HTTPException, ValueError, RecursionError, Wrong) as problem:
        return Probe(healthy_at=healthy_at, works=False, message=f"{asked.address}: {_words(problem)}")
    return Probe(healthy_at=healthy_at, works=True, works_at=clock())


def await_healthy(loading: Sequence[Asked], seconds: float, *, every: float = 0.01) -> None:
    """Wait so long, or until one of them says that it is healthy. Costs next to nothing while it loads."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        for one in loading:
            with suppress(OSError, http.client.HTTPException, Wrong):
                _ask(one.address, "GET", one.health_path, timeout=max(0.01, left))
                return
        time.sleep(min(every, max(0.0, ends - time.monotonic())))


def _prove(asked: Asked) -> None:
    listed = json.loads(_ask(asked.address, "GET", "/v1/models", timeout=HEALTH_TIMEOUT))
    entries = listed.get("data") if isinstance(listed, dict) else None
    named = entries if isinstance(entries, list) else []
    models = {str(entry.get("id")): entry for entry in named if isinstance(entry, dict)}
    if asked.alias not in models:
        raise Wrong(f"/v1/models lists {', '.join(models) or 'nothing'}, not {asked.alias}")
    able = models[asked.alias].get("capabilities")
    if isinstance(able, list) and not CALLED & set(map(str, able)):
        return  # it has warmed up with the model's own example before it said that it is healthy
    question = {
        "model": asked.alias,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "temperature": 0,
    }
    try:
        _ask(asked.address, "POST", "/v1/chat/completions", question)
    except Wrong as chat:
        # A model without a chat template still completes; an embedding model still embeds.
        try:
            _ask(asked.address, "POST", "/v1/completions", {"prompt": "Hi", "max_tokens": 1})
        except Wrong:
            try:
                _ask(asked.address, "POST", "/v1/embeddings", {"input": "Hi", "model": asked.alias})
            except Wrong:
                raise chat from None


def _ask(address: str, method: str, path: str, body: object = None, *, timeout: float = CALL_TIMEOUT) -> bytes:
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout)
    try:
        sent = json.dumps(body).encode() if body is not None else None
        connection.connect()
        connection.sock = Hurried(connection.sock, timeout)
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read(1 << 20)
    finally:
        connection.close()
    if answer.status != 200:
        raise Wrong(f"{path} answered {answer.status}: {content[:200].decode(errors='replace').strip()}")
    return content


def _words(problem: Exception) -> str:
    if isinstance(problem, ConnectionRefusedError):
        return "nothing listens there yet"
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    return str(problem) or type(problem).__name__
