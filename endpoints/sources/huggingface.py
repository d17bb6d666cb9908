"""A model on the Hugging Face Hub, pinned to a commit.

huggingface_hub reads what the Hub says; it is asked by our own client (with this token or none: never the
machine's own), which bounds an answer. The file itself is fetched by `download`, which says there why.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read by the library when it is imported

import httpx2
from huggingface_hub import hf_hub_url, is_offline_mode
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
    validate_repo_id,
)

from endpoints.sources import store as storage
from endpoints.sources.base import Found, Progress, SourceFile, SourceProblem
from endpoints.sources.download import Digest, Stream, http_piece, http_stream
from endpoints.sources.fetching import Patience, Wanted, asked_for, fetch_all
from endpoints.sources.hub_problems import HUB_ANSWERS, HUB_ERRORS, NOT_A_HUB, Asked, problem_of
from endpoints.sources.looking import look
from endpoints.sources.network import client
from endpoints.sources.paths import folder, inside

APP: Final = "tir-console"
COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HuggingFaceSource:
    """`revision`, `file` and `path` may be "": the default branch, the preferred GGUF file, the whole repository.
    Times in seconds.
    """

    model_id: str
    revision: str
    file: str
    token: str | None = field(repr=False)
    hub: str
    path: str = ""
    timeout: float = 10.0
    stall: float = 30.0
    patience: int = 5

    @classmethod
    def of(cls, spec: Mapping[str, Any], *, token: str | None, hub: str) -> "HuggingFaceSource":
        return cls(
            model_id=str(spec.get("model_id", "")).strip(),
            revision=str(spec.get("revision") or "").strip(),
            file=str(spec.get("file") or "").strip(),
            token=(token or "").strip() or None,
            hub=hub.rstrip("/"),
            path=folder(spec.get("path")),
        )

    def check(self, engine: str = "llama.cpp") -> Found:
        return look(
            self,
            revision=self._commit,
            engine=engine,
            where=self.model_id,
            wanted=self.file,
            terms=_license(self._info),
            gated=bool(self._info.gated),
        )

    def files(self) -> list[SourceFile]:
        found = [
            SourceFile(path, item.size or 0, item.lfs.sha256 if item.lfs else None, item.blob_id or "")
            for item in self._info.siblings or ()
            if (path := inside(self.path, item.rfilename))
        ]
        if self.path and not found:
            said = f"{self.model_id} has no folder “{self.path}” at this revision."
            raise SourceProblem("no_path", said, "path")
        return found

    def read(self, path: str, offset: int, size: int) -> bytes:
        with self._asking(), self._client() as client:
            return http_piece(client, self._url(path), self._headers, offset, size, _raise_for_status)

    def at_hand(self, into: Path, files: Sequence[str]) -> Path | None:
        return None  # what lies here is found by the digests that the hub tells: `fetch` asks it

    def fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        """The files under into/hub/<owner>--<name>/<commit>/, hard links to verified blobs."""
        wanted = [self._wanted(file) for file in asked_for(files, self.files(), self.model_id)]
        home = into / "hub" / self.model_id.replace("/", "--") / self._commit / self.path
        patience = Patience(self.stall, self.patience)
        return fetch_all(wanted, home, into, progress, origin=httpx2.URL(self.hub).host, patience=patience)

    def _wanted(self, file: SourceFile) -> Wanted:
        key = storage.key_of(self.hub, self.model_id, self._commit, self.path, file.path)
        name = Digest(f"git-blob {file.size}", file.tag) if COMMIT.fullmatch(file.tag) else None
        return Wanted(file, key, lambda offset: self._stream(file.path, offset), lambda: name)

    @contextmanager
    def _stream(self, path: str, offset: int) -> Iterator[Stream]:
        with (
            self._asking(HUB_ANSWERS),
            self._client() as client,
            http_stream(client, self._url(path), self._headers, offset, _raise_for_status, self.stall) as stream,
        ):
            yield stream

    @cached_property
    def _info(self) -> ModelInfo:
        where = f"{self.hub}/api/models/{self.model_id}"
        where += f"/revision/{quote(self.revision, safe='')}" if self.revision else ""
        with self._asking(HUB_ERRORS + NOT_A_HUB), self._client() as asked:
            validate_repo_id(self.model_id)
            if is_offline_mode():
                raise OfflineModeIsEnabled
            answer = asked.get(where, params={"blobs": True}, headers=self._headers)
            hf_raise_for_status(answer)
            return ModelInfo(**answer.json())  # type: ignore[no-untyped-call]

    @property
    def _commit(self) -> str:
        commit = self._info.sha or ""
        if not COMMIT.fullmatch(commit):
            raise SourceProblem("hub_error", f"{self.hub} names no commit for {self.model_id}.", "revision")
        return commit

    @property
    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = build_hf_headers(token=self.token or False, library_name=APP)
        return headers

    def _url(self, path: str) -> str:
        whole = f"{self.path}/{path}" if self.path else path
        return hf_hub_url(self.model_id, whole, revision=self._commit, endpoint=self.hub)

    def _client(self) -> httpx2.Client:
        """Follows redirects to the file's real place; the token stays behind when that is another host. The hub
        is the operator's choice, and may have a private address."""
        return client(private=True, timeout=self.timeout)

    @contextmanager
    def _asking(self, kinds: tuple[type[Exception], ...] = HUB_ERRORS) -> Iterator[None]:
        try:
            yield
        except kinds as error:
            asked = Asked(self.hub, self.model_id, self.revision or "main", bool(self.token))
            raise problem_of(error, asked) from None


def _raise_for_status(response: httpx2.Response) -> None:
    if response.is_error:
        response.read()
    hf_raise_for_status(response)


def _license(info: ModelInfo) -> str:
    said = getattr(info.card_data, "license", None)
    if isinstance(said, str):
        return said
    tags = info.tags or []
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "")
