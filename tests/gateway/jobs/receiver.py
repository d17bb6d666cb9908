"""A webhook's receiver on this machine: remembers what came, and answers what a test wants."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tir_console.up.ports import free_port


@dataclass
class Receiver:
    """`answer` is the status of the next answers; `headers` go with it; `drip` sends a body that never ends."""

    port: int
    answer: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    drip: bool = False
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @contextlib.contextmanager
    def up(self) -> Iterator[Receiver]:
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        server.daemon_threads = True
        if self.tls is not None:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def receiver(**more: object) -> Receiver:
    """One that is down until it is `up`, at a free port."""
    return Receiver(free_port(), **more)  # type: ignore[arg-type]


def _handler(here: Receiver) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            here.came.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(here.answer)
            for name, value in here.headers.items():
                self.send_header(name, value)
            if not here.drip:
                self.send_header("content-length", "0")
            self.end_headers()
            with contextlib.suppress(OSError):
                while here.drip:
                    self.wfile.write(b"x" * 4096)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nobody reads it."""

    return Handler
