"""A Docker engine that says nothing about a pull or a build: it can be left, and its work ends then."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes.base import Command, Image
from endpoints.runtimes.docker import images, listening
from endpoints.runtimes.docker.hosts import Host
from endpoints.runtimes.docker.record import Vouched
from tests.localhost import Localhost

BASE = {"Id": "sha256:1", "RepoTags": ["base:1"], "RepoDigests": []}


class Cancelled(Exception):
    pass


class Engine(Localhost):
    """Its API as far as it is asked here; of a pull or a build it says these events, and then nothing."""

    def __init__(self, *said: dict[str, Any]) -> None:
        self.said, self.left = said, threading.Event()
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        known: dict[str, Any] = {"/version": {"ApiVersion": "1.45"}, "/v1.45/images/base:1/json": BASE}
        found = known.get(self.path)
        body = json.dumps(found or {"message": "no such image"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        while self.headers.get("Transfer-Encoding") and self.rfile.readline() != b"0\r\n":
            pass  # what a build is made of
        self.rfile.read(int(self.headers.get("Content-Length") or 2))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in self.server.owner.said:
            line = json.dumps(event).encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if not self.connection.recv(1):
            self.server.owner.left.set()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """The tests' output is not for this."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "TICK", 0.05)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine({"status": "Pulling", "stream": "Step 1/4"}) as engine:
        yield engine


@pytest.mark.parametrize(("image", "requirements"), [("other:1", ""), ("base:1", "endless-part\n")])
def test_it_can_be_left_while_it_says_nothing_and_its_work_ends(
    engine: Engine, image: str, requirements: str, tmp_path: Path
) -> None:
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if not line:
            raise Cancelled

    host = Host("test", engine.url.replace("http", "tcp"))
    command = Command(engine="python", model="", alias="", image=Image(image), requirements=requirements)
    with pytest.raises(Cancelled):
        images.bring(host, command, report, Vouched(tmp_path))
    assert lines[-2:] == ["Step 1/4", ""]
    assert engine.left.wait(60)
    host.close()
