"""A small Hugging Face Hub on localhost: the protocol that huggingface_hub speaks, and its bad days.

with Hub({"owner/name": Repo({"model.gguf": data})}) as hub:
    ... source_for(..., hub=hub.url)
    hub.fault(Fault("/resolve/", cut_after=1000))
    hub.requests            # what was asked: method, path, headers
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.localhost import Localhost

API = re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?$")
TREE = re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)$")
RESOLVE = re.compile(r"^/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
CDN = re.compile(r"^/cdn/(?P<sha256>[0-9a-f]{64})$")
PIECE = 16_384


@lru_cache(maxsize=64)
def sha256_of(data: bytes) -> str:
    """Remembered: a real model has a hundred megabytes, and every answer names it."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Repo:
    """A model repository; files ending in .gguf or .safetensors lie in LFS, as on the real Hub."""

    files: Mapping[str, bytes]
    private: bool = False
    gated: str | bool = False  # "auto" or "manual"
    license: str = "apache-2.0"
    branches: tuple[str, ...] = ("main",)

    @property
    def commit(self) -> str:
        listing = "".join(f"{path}{sha256_of(data)}" for path, data in sorted(self.files.items()))
        return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Fault:
    """What goes wrong for requests whose path contains `path`, `times` times."""

    path: str = ""
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body, then the connection is closed
    pause: float = 0.0  # seconds before every piece of the body
    whole: bool = False  # ignore Range
    garbage: bool = False  # 200 with something that is no Hub's answer
    corrupt: bool = False  # the right length with the wrong bytes
    body: bytes = b""  # this instead, as a page that a network puts in front


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]


class Hub(Localhost):
    """`tokens`: token -> repositories it may read though they are private or gated."""

    def __init__(
        self, repos: Mapping[str, Repo], *, tokens: Mapping[str, set[str]] | None = None, redirect: bool = True
    ) -> None:
        self.repos, self.tokens, self.redirect = dict(repos), dict(tokens or {}), redirect
        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        super().__init__(_Handler)

    def fault(self, fault: Fault) -> None:
        self.faults.append(fault)

    def asked(self, part: str) -> list[Asked]:
        """The requests whose path contains this."""
        return [request for request in self.requests if part in request.path]

    def blob(self, sha256: str) -> bytes | None:
        for repo in self.repos.values():
            for data in repo.files.values():
                if sha256_of(data) == sha256:
                    return data
        return None

    def take_fault(self, path: str) -> Fault:
        """The fault due for this path, used up once; an empty one if none is."""
        with self._lock:
            for fault in self.faults:
                if fault.path in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return Fault()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: Any) -> None:
        """The tests' output is not for this."""

    def _answer(self, *, body: bool) -> None:
        hub: Hub = self.server.owner
        path = unquote(urlsplit(self.path).path)
        headers = {name.title(): value for name, value in self.headers.items()}
        hub.requests.append(Asked(self.command, path, headers))
        self.body, self.fault = body, hub.take_fault(path)
        if self.fault.status:
            return self._send(self.fault.status, b"{}", self.fault.headers)
        if self.fault.body:
            return self._send(200, self.fault.body, {})
        if self.fault.garbage:
            return self._send(200, b"<html>Welcome to the hotel's network</html>", {})
        for pattern, act in ((API, self._info), (TREE, self._tree), (RESOLVE, self._resolve), (CDN, self._cdn)):
            if found := pattern.match(path):
                return act(hub, found.groupdict())
        return self._error(404, "", "not found")

    def _repo(self, hub: Hub, name: str, *, reading: bool) -> Repo | None:
        """The repository if the asker may see (or read) it; else the Hub's refusal has been sent."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in hub.tokens:
            self._error(401, "", "Invalid credentials in Authorization header")
            return None
        repo, mine = hub.repos.get(name), name in hub.tokens.get(token, set())
        if repo is None or (repo.private and not mine):
            if token:
                self._error(404, "RepoNotFound", "Repository not found")
                return None
            self._error(401, "RepoNotFound", "Invalid username or password.")
            return None
        if reading and repo.gated and not mine:
            said = f"Access to model {name} is restricted."
            self._error(403 if token else 401, "GatedRepo", said)
            return None
        return repo

    def _at(self, hub: Hub, asked: Mapping[str, str], *, reading: bool) -> Repo | None:
        repo = self._repo(hub, asked["repo"], reading=reading)
        if repo and asked.get("revision") not in {None, repo.commit, *repo.branches}:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {asked['revision']}")
            return None
        return repo

    def _info(self, hub: Hub, asked: Mapping[str, str]) -> None:
        if repo := self._at(hub, asked, reading=False):
            answer = {
                "id": asked["repo"],
                "modelId": asked["repo"],
                "sha": repo.commit,
                "private": repo.private,
                "gated": repo.gated,
                "tags": ["gguf", f"license:{repo.license}"],
                "cardData": {"license": repo.license},
                "siblings": [_sibling(path, data) for path, data in repo.files.items()],
            }
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _tree(self, hub: Hub, asked: Mapping[str, str]) -> None:
        if repo := self._at(hub, asked, reading=False):
            tree = [{"type": "file", "path": path, "size": len(data)} for path, data in repo.files.items()]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _resolve(self, hub: Hub, asked: Mapping[str, str]) -> None:
        repo = self._at(hub, asked, reading=True)
        if repo is None:
            return None
        data = repo.files.get(asked["path"])
        if data is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{_git_sha(data)}"'}
        if not _in_lfs(asked["path"]):
            return self._file(data, headers)
        sha256 = sha256_of(data)
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{sha256}"'}
        if not hub.redirect:
            return self._file(data, headers)
        # On the real Hub the file lies on another host, which must never see the token.
        return self._send(302, b"", headers | {"Location": f"http://localhost:{hub.port}/cdn/{sha256}"})

    def _cdn(self, hub: Hub, asked: Mapping[str, str]) -> None:
        data = hub.blob(asked["sha256"])
        if data is None:
            return self._error(404, "", "gone")
        return self._file(data, {"ETag": f'"{asked["sha256"]}"'})

    def _file(self, data: bytes, headers: Mapping[str, str]) -> None:
        if self.fault.corrupt:
            data = bytes(255 - byte for byte in data[:64]) + data[64:]
        asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        if not asked or self.fault.whole:
            return self._send(200, data, headers)
        start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if start >= len(data):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        ranged = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return self._send(206, data[start : end + 1], {**headers, **ranged})

    def _error(self, status: int, code: str, said: str) -> None:
        headers = {"X-Error-Message": said} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": said}).encode(), headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not self.body:
            return
        left = data if self.fault.cut_after is None else data[: self.fault.cut_after]
        try:
            for at in range(0, len(left), PIECE):
                if self.fault.pause:
                    time.sleep(self.fault.pause)
                self.wfile.write(left[at : at + PIECE])
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if len(left) < len(data):
            self.close_connection = True


def _in_lfs(path: str) -> bool:
    return path.endswith((".gguf", ".safetensors"))


@lru_cache(maxsize=64)
def _git_sha(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": _git_sha(data)}
    if _in_lfs(path):
        found["lfs"] = {"sha256": sha256_of(data), "size": len(data), "pointerSize": 134}
    return found
