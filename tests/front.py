"""A small server in front of another: it counts what goes through, and has the bad days the other never has.

with Front(address) as front:
    front.fault(Fault("/model.bin", cut_after=1000))
    front.sent("/model.bin")   # bytes of each answer's body, in order
"""

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.localhost import Localhost

PIECE = 8192
HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"})


@dataclass
class Fault:
    """What goes wrong for requests whose path contains `path`, `times` times."""

    path: str = ""
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None  # bytes of the body, then the connection is closed
    pause: float = 0.0  # seconds before every piece of the body
    corrupt: bool = False
    method: str = "GET"
    after: int = 0  # so many requests are let through first


@dataclass
class Passed:
    """A request, and what went back."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 0
    sent: int = 0


Answer = tuple[int, Mapping[str, str], bytes]
Door = Callable[[str, str, Mapping[str, str], bytes], Answer | None]
"""`door(method, path, headers, body)`: an answer of its own, or None to let it through."""


class Front(Localhost):
    """`door` is asked before the server behind is; it may be all there is."""

    def __init__(self, behind: str = "", *, door: Door | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.behind, self.door = urlsplit(behind).netloc, door
        self.passed: list[Passed] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        super().__init__(_Handler, tls=tls)

    def fault(self, fault: Fault) -> None:
        self.faults.append(fault)

    def of(self, part: str) -> list[Passed]:
        """The GET requests whose path contains this."""
        return [one for one in self.passed if part in one.path and one.method == "GET"]

    def sent(self, part: str) -> list[int]:
        return [one.sent for one in self.of(part)]

    def take_fault(self, method: str, path: str) -> Fault:
        with self._lock:
            for fault in self.faults:
                if fault.path not in path or fault.method != method or not fault.times:
                    continue
                if not fault.after:
                    fault.times -= 1
                    return fault
                fault.after -= 1
        return Fault()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        front: Front = self.server.owner
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        passed = Passed(self.command, self.path, dict(self.headers))
        front.passed.append(passed)
        fault = front.take_fault(self.command, self.path)
        if fault.status:
            answer: Answer | None = (fault.status, fault.headers, fault.body)
        else:
            answer = front.door(self.command, self.path, dict(self.headers), body) if front.door else None
        self._send(answer or self._ask(front, body), fault, passed)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """The tests' output is not for this."""

    def _ask(self, front: Front, body: bytes) -> Answer:
        behind = http.client.HTTPConnection(front.behind, timeout=30)
        try:
            behind.request(self.command, self.path, body, dict(self.headers))
            got = behind.getresponse()
            headers = {name: value for name, value in got.getheaders() if name.lower() not in HOP}
            if self.command == "HEAD":
                headers["Content-Length"] = got.getheader("Content-Length", "0")
            return got.status, headers, got.read()
        finally:
            behind.close()

    def _send(self, answer: Answer, fault: Fault, passed: Passed) -> None:
        status, headers, data = answer
        passed.status = status
        if fault.corrupt:
            data = bytes(255 - byte for byte in data)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        left, piece = data if fault.cut_after is None else data[: fault.cut_after], b""
        try:
            for at in range(0, len(left), PIECE):
                if fault.pause:
                    time.sleep(fault.pause)
                piece = left[at : at + PIECE]
                passed.sent += len(piece)  # before it goes: whoever has it may look at once
                self.wfile.write(piece)
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            passed.sent -= len(piece)
            self.close_connection = True
        if len(left) < len(data):
            self.close_connection = True
