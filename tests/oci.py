"""A registry on localhost: the protocol of OCI as engines speak it, with a token service, and its bad days.

with Registry(users={"bob": "password"}) as registry:
    digest = registry.push("team/own", "1", image(user="app"))
    registry.name("team/own:1")         # as it is pulled
    registry.asked                      # (path, Authorization) of each request
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.localhost import Localhost

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ATTESTATION = {"vnd.docker.reference.type": "attestation-manifest"}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image(arch: str = "amd64", system: str = "linux", **config: Any) -> dict[str, Any]:
    """A configuration blob; `config` in its own words (User, Cmd, ExposedPorts…)."""
    usual = {"Cmd": ["/serve"], "ExposedPorts": {"8000/tcp": {}}, "User": "65532", "Env": ["LANG=C.UTF-8"]}
    return {"architecture": arch, "os": system, "config": usual | config, "rootfs": {"type": "layers"}}


class Registry(Localhost):
    """`users` (name → password) may read what is in `private`; `auth`: how they say who they are.

    `faults`: a part of a path → the status that is answered there, with `headers`.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        auth: str = "bearer",
        private: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.users, self.auth, self.private = dict(users or {}), auth, private
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # repository, tag or digest → type, bytes
        self.faults: dict[str, int] = {}
        self.headers: dict[str, str] = {}
        self.realm = ""
        self.cdn = ""  # where blobs lie, if not here
        self.asked: list[tuple[str, str]] = []
        super().__init__(Handler, tls=tls)

    def name(self, rest: str) -> str:
        return f"127.0.0.1:{self.port}/{rest}"

    def push(self, repository: str, tag: str, *configs: dict[str, Any], attested: bool = False) -> str:
        """One image, or one for each configuration beneath one tag; its digest."""
        entries = [self._entry(repository, config) for config in configs]
        if attested:
            entries.append(self._entry(repository, image("unknown", "unknown")) | {"annotations": ATTESTATION})
        if len(entries) == 1:
            kind, body = self.manifests[repository, entries[0]["digest"]]
        else:
            kind, body = INDEX, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        return self.place(repository, tag, kind, body)

    def push_artifact(self, repository: str, tag: str, kind: str) -> str:
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": self._blob(kind, b"{}"), "layers": []}
        return self.place(repository, tag, MANIFEST, json.dumps(manifest).encode())

    def place(self, repository: str, tag: str, kind: str, body: bytes) -> str:
        self.manifests[repository, tag] = self.manifests[repository, digest_of(body)] = kind, body
        return digest_of(body)

    def _entry(self, repository: str, config: dict[str, Any]) -> dict[str, Any]:
        layers = [self._blob(LAYER, b"layer") | {"size": 7 << 20}, self._blob(LAYER, b"more") | {"size": 5 << 20}]
        described = self._blob(CONFIG, json.dumps(config).encode())
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
        body = json.dumps(manifest).encode()
        self.manifests[repository, digest_of(body)] = MANIFEST, body
        platform = {"os": config["os"], "architecture": config["architecture"]}
        return {"mediaType": MANIFEST, "digest": digest_of(body), "size": len(body), "platform": platform}

    def _blob(self, kind: str, data: bytes) -> dict[str, Any]:
        self.blobs[digest_of(data)] = data
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    def user(self, authorization: str) -> str | None:
        """Who this is: "" for nobody, None for a wrong password."""
        if not authorization:
            return ""
        kind, _, given = authorization.partition(" ")
        if kind == "Bearer":
            return given.removeprefix("token-of-") if given.startswith("token-of-") else None
        name, _, password = base64.b64decode(given).decode().partition(":")
        return name if self.users.get(name) == password else None

    def challenge(self, repository: str) -> str:
        if self.auth == "basic":
            return 'Basic realm="a registry"'
        realm = self.realm or f"{self.url}/token?a=b"
        return f'Bearer realm="{realm}",service="registry, of tests",scope="repository:{repository}:pull"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def registry(self) -> Registry:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def handle(self) -> None:
        with suppress(ConnectionError):  # of who comes to speak TLS, or likes no certificate
            super().handle()

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.registry.asked.append((self.path, authorization))
        path = urlsplit(self.path).path
        for part, status in self.registry.faults.items():
            if part in self.path:
                return self.answer(status, b'{"errors": [{"code": "TOOMANYREQUESTS"}]}')
        if path == "/token":
            return self.token(authorization)
        if path.startswith("/cdn/"):
            return self.answer(200, self.registry.blobs[path.rpartition("/")[2]])
        repository, kind, reference = path.removeprefix("/v2/").rsplit("/", 2)
        if not self.admitted(repository, authorization):
            return self.refuse(repository)
        if kind == "tags":
            return self.tags(repository)
        return self.blob(reference) if kind == "blobs" else self.manifest(repository, reference)

    def admitted(self, repository: str, authorization: str) -> bool:
        """With tokens everybody needs one, also nobody's; with passwords only what is private needs one."""
        user = self.registry.user(authorization)
        if self.registry.auth == "bearer" and not authorization.startswith("Bearer "):
            return False
        return user is not None and (user not in ("", "nobody") or not self.registry.private)

    def token(self, authorization: str) -> None:
        user = self.registry.user(authorization)
        query = parse_qs(urlsplit(self.path).query)
        if user is None or query["service"] != ["registry, of tests"] or query["a"] != ["b"]:
            return self.answer(401, b'{"details": "incorrect username or password"}')
        return self.answer(200, json.dumps({"token": f"token-of-{user or 'nobody'}"}).encode())

    def tags(self, repository: str) -> None:
        found = [tag for name, tag in self.registry.manifests if name == repository and ":" not in tag]
        if not found:
            return self.answer(404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')
        return self.answer(200, json.dumps({"name": repository, "tags": found}).encode())

    def manifest(self, repository: str, reference: str) -> None:
        found = self.registry.manifests.get((repository, reference))
        if found is None or found[0] not in self.headers.get("Accept", ""):
            return self.answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        return self.answer(200, found[1], found[0])

    def blob(self, digest: str) -> None:
        if self.registry.cdn:
            return self.answer(307, b"", Location=f"{self.registry.cdn}/cdn/{digest}")
        return self.answer(200, self.registry.blobs[digest])

    def refuse(self, repository: str) -> None:
        challenge = self.registry.challenge(repository)
        return self.answer(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', **{"WWW-Authenticate": challenge})

    def answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in (self.registry.headers | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
