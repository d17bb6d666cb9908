"""Asking an instance ends in time and in words, whatever answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.utils import timezone

from endpoints import probes
from endpoints.probes import Asked

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIPS = 200


@contextmanager
def answering(*answers: bytes, drip: bytes = b"") -> Iterator[str]:
    """The address of a server that sends one of these to each who comes, and then drips until they go."""

    def serve() -> None:
        for answer in answers:
            connection = server.accept()[0]
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                for _ in range(DRIPS if drip else 0):
                    try:
                        connection.sendall(drip)
                    except OSError:
                        break
                    time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "drip"), [(HEAD + b"\r\n", b"."), (HEAD + b"X-Long: ", b"x")], ids=["body", "header"]
)
def test_one_that_only_drips_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, answer: bytes, drip: bytes) -> None:
    monkeypatch.setattr(probes, "HEALTH_TIMEOUT", 0.5)
    with answering(answer, drip=drip) as address:
        said = probes.probe(Asked("one", address, "demo", prove=False), timezone.now)
    assert said.healthy_at is None
    assert said.message == f"{address}/health: no answer in time"


@pytest.mark.parametrize("models", [b"[1]", b'{"data": 1}', b'{"data": [1]}', b"[" * 200_000, b"no JSON"])
def test_a_list_of_models_that_is_none_is_an_answer_too(models: bytes) -> None:
    with answering(HEAD + b"\r\n{}", HEAD + b"\r\n" + models) as address:
        said = probes.probe(Asked("one", address, "demo", prove=True), timezone.now)
    assert said.healthy_at is not None
    assert said.works is False
    assert said.message
