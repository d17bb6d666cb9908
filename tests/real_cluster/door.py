"""A way to an API server that a test can shut: an outage for who goes through it, and for nobody else."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class Door(socketserver.ThreadingTCPServer):
    """Passes what comes to its port on, byte by byte, unless it is shut."""

    daemon_threads = True

    def __init__(self, to: tuple[str, int]) -> None:
        self.to, self.is_shut = to, False
        self.passing: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Passage)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Whoever is under way is cut off, and whoever comes finds nobody."""
        self.is_shut = True
        for one in list(self.passing):
            cut(one)
        yield
        self.is_shut = False


class Passage(socketserver.BaseRequestHandler):
    server: Door

    def handle(self) -> None:
        if self.server.is_shut:
            return
        with socket.create_connection(self.server.to) as onward:
            both = {self.request, onward}
            self.server.passing |= both
            back = threading.Thread(target=pour, args=(onward, self.request), daemon=True)
            back.start()
            pour(self.request, onward)
            back.join()
            self.server.passing -= both


def pour(source: socket.socket, into: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65_536):
            into.sendall(some)
    cut(source)
    cut(into)


def cut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def behind_a_door(kubeconfig: Path, folder: Path) -> tuple[Door, str]:
    """The present context of a kubeconfig as one that goes through a door."""
    given: dict[str, Any] = yaml.safe_load(kubeconfig.read_text("utf-8"))
    context = named(given["contexts"], given["current-context"])["context"]
    cluster = named(given["clusters"], context["cluster"])["cluster"]
    user = named(given["users"], context["user"])["user"]
    for one in (cluster, user):
        one.update({key: str(kubeconfig.parent / one[key]) for key in FILES if key in one})
    server = urlsplit(cluster["server"])
    door = Door((server.hostname or "", server.port or (443 if server.scheme == "https" else 80)))
    cluster["server"] = f"{server.scheme}://127.0.0.1:{door.port}{server.path}"
    if server.scheme == "https":
        cluster.setdefault("tls-server-name", server.hostname)
    path = folder / "kubeconfig"
    path.touch(0o600)
    here = {"clusters": cluster, "users": user, "contexts": {"cluster": "here", "user": "here"}}
    lists = {many: [{"name": "here", many.removesuffix("s"): one}] for many, one in here.items()}
    path.write_text(yaml.safe_dump({"current-context": "here", **lists}), "utf-8")
    return door, str(path)


def named(some: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in some if one["name"] == name)
