"""A registry on localhost with one image: enough of the protocol for a pull, with a password if wanted."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
REPOSITORY = "team/own"


class Registry:
    """`with Registry(password="…") as registry:` … `registry.image` is the name to pull."""

    def __init__(self, *, password: str = "") -> None:
        self.password = password
        self.user = "someone"
        self.requests: list[str] = []
        self.blobs: dict[str, bytes] = {}
        layer = _layer()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/hello"], "User": "1000"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        packed, described = gzip.compress(layer, mtime=0), json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(CONFIG, described),
            "layers": [self._blob(LAYER, packed)],
        }
        self.manifest = json.dumps(manifest).encode()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def image(self) -> str:
        return f"{self.host}/{REPOSITORY}:1"

    def __enter__(self) -> Registry:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    def admits(self, authorization: str) -> bool:
        given = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return not self.password or authorization == f"Basic {given}"

    def find(self, path: str) -> tuple[str, bytes] | None:
        """The type and the bytes of what is asked for."""
        if path == "/v2/":
            return "application/json", b"{}"
        if path in {f"/v2/{REPOSITORY}/manifests/1", f"/v2/{REPOSITORY}/manifests/{_digest(self.manifest)}"}:
            return MANIFEST, self.manifest
        digest = path.rpartition("/")[2]
        return ("application/octet-stream", self.blobs[digest]) if digest in self.blobs else None

    def _blob(self, kind: str, content: bytes) -> dict[str, Any]:
        self.blobs[_digest(content)] = content
        return {"mediaType": kind, "size": len(content), "digest": _digest(content)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.requests.append(self.path)
                found = registry.find(self.path)
                if not registry.admits(self.headers.get("Authorization", "")):
                    self.answer(401, "application/json", b'{"errors": [{"code": "UNAUTHORIZED"}]}')
                elif found is None:
                    self.answer(404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
                else:
                    self.answer(200, *found)

            def do_HEAD(self) -> None:
                self.do_GET()

            def answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="here"')
                if kind == MANIFEST:
                    self.send_header("Docker-Content-Digest", _digest(body))
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _layer() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        text = b"#!/bin/sh\necho hello\n"
        entry = tarfile.TarInfo("hello")
        entry.size, entry.mode = len(text), 0o755
        archive.addfile(entry, io.BytesIO(text))
    return made.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
