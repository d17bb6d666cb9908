"""Large files of a Git repository (Git LFS): pointers in the repository, bytes from the batch API.

The token of the Git server goes to that server only. What the batch answers says itself which headers a
download needs, and it is asked anew for each attempt, because those lose their force.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from endpoints.sources.base import SourceFile, SourceProblem
from endpoints.sources.download import RETRIED, Interrupted, Stream, http_piece, http_stream
from endpoints.sources.git_client import Access, Failed, heard
from endpoints.sources.network import client, unreachable

POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)
LONGEST_POINTER: Final = 1024
SSH_SECONDS: Final = 60.0
JSON: Final = "application/vnd.git-lfs+json"


def pointer(content: bytes) -> tuple[str, int] | None:
    """The sha256 and the size that a pointer names; None for any other file."""
    found = POINTER.fullmatch(content)
    return (found[1].decode(), int(found[2])) if found else None


@dataclass(frozen=True)
class LargeFiles:
    """`elsewhere`: the address in the repository's .lfsconfig, "" for the usual one."""

    access: Access
    elsewhere: str = ""

    def piece(self, file: SourceFile, offset: int, size: int) -> bytes:
        with self._client() as asked, self._asking():
            url, headers = self._download(asked, file)
            return http_piece(asked, url, headers, offset, size, _raise_for(file))

    @contextmanager
    def stream(self, file: SourceFile, offset: int) -> Iterator[Stream]:
        with self._client() as asked:
            url, headers = self._download(asked, file)
            with http_stream(asked, url, headers, offset, _raise_for(file), self.access.stall) as stream:
                yield stream

    def _download(self, asked: httpx2.Client, file: SourceFile) -> tuple[str, dict[str, str]]:
        """Where the bytes are now, and the headers to ask with."""
        body = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": file.sha256, "size": file.size}],
            "hash_algo": "sha256",
        }
        api, headers, answer = self._batch(asked, json.dumps(body))
        if answer.status_code == 401 and self.__dict__.pop("_by_ssh", None):  # that was for a while only
            api, headers, answer = self._batch(asked, json.dumps(body))
        if answer.status_code in RETRIED:
            raise Interrupted(f"the server answered {answer.status_code}")
        if answer.is_error:
            raise self._refused(answer.status_code, api)
        try:
            [found] = answer.json()["objects"]
            action = found.get("actions", {}).get("download")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._refused(404, api) from None
        if action is None:
            raise _gone(file)
        said: Mapping[str, str] = action.get("header") or {}
        mine = headers if not said and _origin(action["href"]) == _origin(api) else {}
        return str(action["href"]), {**mine, **said}

    def _batch(self, asked: httpx2.Client, body: str) -> tuple[str, dict[str, str], httpx2.Response]:
        api, headers = self._api
        more = {"Accept": JSON, "Content-Type": JSON}
        return api, headers, asked.post(f"{api}/objects/batch", content=body, headers={**headers, **more})

    @property
    def _api(self) -> tuple[str, dict[str, str]]:
        address = self.access.address
        usual = f"https://{address.origin.partition('://')[2]}{address.path}"
        usual = usual if usual.endswith(".git") else f"{usual}.git"
        if address.scheme == "ssh" and not self.elsewhere:
            return self._by_ssh
        api = self.elsewhere or f"{usual}/info/lfs"
        if urlsplit(api).scheme != "https":
            said = f"The repository keeps its large files at “{api[:200]}”, which isn't https."
            raise SourceProblem("lfs", said, "url")
        basic = self.access.basic if address.scheme == "https" and _origin(api) == _origin(usual) else None
        return api.rstrip("/"), {"Authorization": basic} if basic else {}

    @cached_property
    def _by_ssh(self) -> tuple[str, dict[str, str]]:
        """What the server says to `git-lfs-authenticate`: where to ask, and with which headers."""
        address = self.access.address
        path = address.path.lstrip("/")
        with self.access.opened() as environment:
            ssh = environment["GIT_SSH_COMMAND"]
            asked = f'{ssh} -p {address.port} -- "$TIR_SERVER" "$TIR_COMMAND"'
            given = {"TIR_SERVER": f"{address.user}@{address.host}"}
            given["TIR_COMMAND"] = f"git-lfs-authenticate {path} download"
            command = ["/bin/sh", "-c", f"exec {asked}"]
            waiting = _in_time(address.host, time.monotonic() + SSH_SECONDS)
            try:
                found = json.loads(heard(command, environment | given, stall=SSH_SECONDS, waiting=waiting))
                return str(found["href"]).rstrip("/"), dict(found.get("header") or {})
            except (Failed, ValueError, KeyError, TypeError):
                refused = (
                    f"{address.host} gives no access to the repository's large files (LFS) over SSH. Use https."
                )
                raise SourceProblem("lfs", refused, "url") from None

    def _refused(self, status: int, api: str) -> SourceProblem:
        if status in {401, 403}:
            said = f"The credential may not read the repository's large files (LFS) at {api}."
            return SourceProblem("forbidden", said, "token_secret")
        said = (
            f"{api} doesn't answer as an LFS server does ({status}), but the repository keeps large files there."
        )
        return SourceProblem("lfs", said, "url")

    def _client(self) -> httpx2.Client:
        return client(private=self.access.private, timeout=self.access.timeout)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except Interrupted as busy:
            said = f"{self.access.address.host} has a problem of its own ({busy}). Try again."
            raise SourceProblem("busy", said, passing=True) from None
        except httpx2.HTTPError as error:
            raise unreachable(self.access.address.host, error) from None


def _in_time(host: str, end: float) -> Callable[[], None]:
    """What gives a server up that has not answered by then."""

    def waiting() -> None:
        if time.monotonic() > end:
            said = f"{host} said nothing when asked for the repository's large files. Try again."
            raise SourceProblem("stalled", said, "url", passing=True)

    return waiting


def _raise_for(file: SourceFile) -> Any:
    def raise_for_status(answer: httpx2.Response) -> None:
        if answer.status_code in {401, 403}:
            raise Interrupted(
                f"the server answered {answer.status_code}"
            )  # its headers lost their force: ask anew
        if answer.is_error:
            raise _gone(file)

    return raise_for_status


def _gone(file: SourceFile) -> SourceProblem:
    said = f"The repository names the large file {file.path}, but its LFS server doesn't hold it. Push it again."
    return SourceProblem("gone", said, "path")


def _origin(url: str) -> tuple[str, str, int]:
    found = urlsplit(url)
    return found.scheme, found.hostname or "", found.port or (443 if found.scheme == "https" else 80)
