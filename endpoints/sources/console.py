"""A version of a console's registry, fetched from that console: for machines that don't share its disk."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from endpoints.sources import store as storage
from endpoints.sources.base import Found, Progress, SourceFile, SourceProblem
from endpoints.sources.download import Stream, http_piece, http_stream
from endpoints.sources.fetching import Wanted, asked_for, fetch_all
from endpoints.sources.looking import look


@dataclass(frozen=True)
class ConsoleSource:
    """`url` is where the console serves the version's files, `token` says that they may be had."""

    url: str
    declared: tuple[SourceFile, ...]
    version: str
    token: str = field(repr=False)
    timeout: float = 10.0
    stall: float = 30.0

    @classmethod
    def of(cls, spec: Mapping[str, Any], *, token: str | None) -> "ConsoleSource":
        """`declared`: the version's files with path, size and sha256."""
        files = tuple(
            SourceFile(str(file["path"]), int(file["size"]), str(file["sha256"])) for file in spec["declared"]
        )
        return cls(str(spec["url"]).rstrip("/"), files, str(spec.get("version", "")), token or "")

    def check(self, engine: str = "llama.cpp") -> Found:
        return look(self, revision=self.version, engine=engine, where="This model version")

    def files(self) -> list[SourceFile]:
        return list(self.declared)

    def read(self, path: str, offset: int, size: int) -> bytes:
        with self._asking(), self._client() as client:
            return http_piece(client, self._url(path), self._headers, offset, size, self._final)

    def at_hand(self, into: Path, files: Sequence[str]) -> Path | None:
        return None  # `fetch` finds by their digests what lies here

    def fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        """The files under into/console/<a name for this version's address>/, hard links to verified blobs."""
        wanted = [
            Wanted(file, storage.key_of(self.url, file.path), lambda offset, file=file: self._stream(file, offset))  # type: ignore[misc]
            for file in asked_for(files, self.declared, "This model version")
        ]
        home = into / "console" / storage.key_of(self.url)[:24]
        return fetch_all(wanted, home, into, progress, origin=httpx2.URL(self.url).host)

    @contextmanager
    def _stream(self, file: SourceFile, offset: int) -> Iterator[Stream]:
        with (
            self._client() as client,
            http_stream(client, self._url(file.path), self._headers, offset, self._final, self.stall) as stream,
        ):
            yield stream

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def _url(self, path: str) -> str:
        return f"{self.url}/{quote(path)}"

    def _client(self) -> httpx2.Client:
        return httpx2.Client(timeout=self.timeout)

    def _final(self, response: httpx2.Response) -> None:
        if response.status_code in {401, 403, 404}:
            said = "The console no longer serves this model version: its endpoint or the version was deleted."
            raise SourceProblem("gone", said, "model")
        if response.is_error or response.is_redirect:
            raise SourceProblem("console_error", f"The console answered {response.status_code}.", passing=True)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            said = f"The console at {httpx2.URL(self.url).host} can't be reached: {error}."
            raise SourceProblem("unreachable", said, passing=True) from None
