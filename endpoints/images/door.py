"""The way into a registry: over https, with the credential that its challenge asks for, and for no longer and no
more bytes than a page can wait for.

Credentials go in headers: to the registry itself (Basic), or to the token service that it names (Bearer;
distribution's token authentication), and to nothing that either redirects to.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from endpoints.addresses import literal
from endpoints.images import problems
from endpoints.images.names import Name
from endpoints.sources.base import SourceProblem
from endpoints.sources.network import client

MOST_BYTES: Final = 4 << 20  # of a manifest or a configuration; registries allow no more of the former
TOGETHER: Final = 25.0  # seconds for all questions about one image
_BEARER: Final = re.compile(r"(?:^|,)\s*bearer\s+", re.IGNORECASE)
_BASIC: Final = re.compile(r"(?:^|,)\s*basic\b", re.IGNORECASE)
_PAIR: Final = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Answer:
    """What a server said, whole. `here`: it was the registry itself, not one that it sent us to."""

    status: int
    here: bool
    headers: httpx2.Headers
    body: bytes

    def json(self) -> Any:
        """None for what is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass
class Door:
    """To one image's registry, for as long as one check takes. SourceProblem for all that keeps it shut."""

    name: Name
    username: str = ""
    password: str = field(default="", repr=False)
    private: bool = True
    timeout: float = 8.0

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + TOGETHER
        self._scheme = "https"
        self._authorization = ""

    def get(self, path: str, accept: str = "") -> Answer:
        """`path` beneath the image's own address in the API."""
        url = f"/v2/{self.name.path}/{path}"
        answer = self._ask(url, accept)
        if answer.status == 401 and answer.here and not self._authorization:
            self._authorization = self._admitted(answer.headers)
            answer = self._ask(url, accept)
        return answer

    def _ask(self, path: str, accept: str) -> Answer:
        headers = {"Accept": accept} if accept else {}
        if self._authorization:
            headers["Authorization"] = self._authorization
        try:
            return self._fetch(f"{self._scheme}://{self.name.server}{path}", headers)
        except httpx2.ConnectError as error:
            if self._scheme == "http" or not _loopback(self.name.host) or problems.of_certificate(error):
                raise problems.unreached(self.name, error) from None
        except httpx2.HTTPError as error:
            raise problems.unreached(self.name, error) from None
        self._scheme = "http"  # as engines do: only of this machine itself
        return self._ask(path, accept)

    def _fetch(self, url: str, headers: Mapping[str, str], *, follow: bool = True) -> Answer:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise problems.slow(self.name)
        wanted = {"Accept-Encoding": "identity", **headers}
        try:
            with (
                client(private=self.private, timeout=min(self.timeout, left), follow_redirects=follow) as asked,
                asked.stream("GET", url, headers=wanted) as response,
            ):
                here = response.url.host == httpx2.URL(url).host
                return Answer(response.status_code, here, response.headers, self._read(response))
        except SourceProblem as problem:  # an address that nothing is fetched from
            raise SourceProblem(problem.code, problem.message, problems.IMAGE, passing=problem.passing) from None

    def _read(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MOST_BYTES:
                raise problems.no_registry(self.name)
            if time.monotonic() > self._ends:
                raise problems.slow(self.name)
        return bytes(body)

    # ── being admitted ────────────────────────────────────────────────────────────────────────────
    def _admitted(self, headers: httpx2.Headers) -> str:
        """The header that its challenge asks for."""
        challenges = headers.get_list("WWW-Authenticate")
        for one in challenges:
            if bearer := _BEARER.search(one):
                return f"Bearer {self._token(_pairs(one[bearer.end() :]))}"
        if self.password and any(_BASIC.search(one) for one in challenges):
            return self._basic()
        raise problems.refused(self.name, self.username)

    def _basic(self) -> str:
        request = httpx2.Request("GET", "https://registry.invalid")
        flow = httpx2.BasicAuth(self.username, self.password).auth_flow(request)
        return str(next(flow).headers["Authorization"])

    def _token(self, challenge: Mapping[str, str]) -> str:
        realm = self._realm(challenge.get("realm", ""))
        asked = {"scope": challenge.get("scope") or f"repository:{self.name.path}:pull"}
        if challenge.get("service"):
            asked["service"] = challenge["service"]
        headers = {"Authorization": self._basic()} if self.password else {}
        try:
            answer = self._fetch(str(realm.copy_merge_params(asked)), headers, follow=False)
        except httpx2.HTTPError as error:
            raise problems.unreached(self.name, error, realm.host) from None
        if answer.status in (400, 401, 403):
            raise problems.refused(self.name, self.username, at_door=True)
        if answer.status != 200:
            raise problems.answered(self.name, answer.status, answer.headers)
        said = answer.json()
        token = (said.get("token") or said.get("access_token")) if isinstance(said, Mapping) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise problems.no_registry(self.name)
        return token

    def _realm(self, given: str) -> httpx2.URL:
        """Of the token service; over a line that can be read only where the registry itself is asked so."""
        try:
            realm = httpx2.URL(given)
        except httpx2.InvalidURL:
            raise problems.no_registry(self.name) from None
        if not realm.host or realm.userinfo or realm.scheme not in {"https", self._scheme}:
            raise problems.no_registry(self.name)
        return realm


def _pairs(challenge: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, quoted, bare in _PAIR.findall(challenge):
        found.setdefault(key.lower(), re.sub(r"\\(.)", r"\1", quoted) or bare)
    return found


def _loopback(host: str) -> bool:
    """Whether it is this machine, by its name."""
    bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    address = literal(bare)
    return bare == "localhost" or (address is not None and address.is_loopback)
