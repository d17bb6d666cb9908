"""A model on the Hugging Face Hub, pinned to a commit.

huggingface_hub asks the Hub about the model (with this token or none: never the machine's own); the file
itself is fetched by `download`, which says there why.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read by the library when it is imported

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
    validate_repo_id,
)

from endpoints.sources import store as storage
from endpoints.sources.base import Found, Progress, SourceFile, SourceProblem
from endpoints.sources.download import Download, download
from endpoints.sources.hub_problems import HUB_ERRORS, NOT_A_HUB, Asked, problem_of
from endpoints.sources.looking import look

APP: Final = "tir-console"
COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HuggingFaceSource:
    """`revision` and `file` may be "": the default branch, the preferred GGUF file. Times in seconds."""

    model_id: str
    revision: str
    file: str
    token: str | None = field(repr=False)
    hub: str
    timeout: float = 10.0
    stall: float = 30.0
    patience: int = 5

    @classmethod
    def of(cls, spec: Mapping[str, Any], *, token: str | None, hub: str) -> "HuggingFaceSource":
        return cls(
            model_id=str(spec.get("model_id", "")).strip(),
            revision=str(spec.get("revision") or "").strip(),
            file=str(spec.get("file") or "").strip(),
            token=token or None,
            hub=hub.rstrip("/"),
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
        return [
            SourceFile(item.rfilename, item.size or 0, item.lfs.sha256 if item.lfs else None)
            for item in self._info.siblings or ()
            if _harmless(item.rfilename)
        ]

    def read(self, path: str, offset: int, size: int) -> bytes:
        headers = {**self._headers, "Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        with (
            self._asking(),
            self._client() as client,
            client.stream("GET", self._url(path), headers=headers) as got,
        ):
            if got.status_code == 416:
                return b""
            _raise_for_status(got)
            skip = 0 if got.status_code == 206 else offset  # a proxy may answer the whole file
            piece = b""
            for part in got.iter_raw():
                piece += part
                if len(piece) >= skip + size:
                    break
            return piece[skip : skip + size]

    def at_hand(self, into: Path, files: Sequence[str]) -> Path | None:
        return None  # what lies here is found by the digests that the hub tells: `fetch` asks it

    def fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        """The files under into/hub/<owner>--<name>/<commit>/, hard links to verified blobs."""
        known = {file.path: file for file in self.files()}
        missing = [path for path in files if path not in known]
        if missing:
            raise SourceProblem("no_file", f"{self.model_id} has no file “{missing[0]}”.", "file")
        wanted = [known[path] for path in files]
        total, before = sum(file.size for file in wanted), 0
        progress(0, total)
        home = into / "hub" / self.model_id.replace("/", "--") / self._commit
        for file in wanted:
            blob = self._blob(file, into, _shifted(progress, before, total))
            storage.link(blob, home / file.path)
            before += file.size
            progress(before, total)
        return home / wanted[0].path

    def _blob(self, file: SourceFile, into: Path, progress: Callable[[int], None]) -> Path:
        """The verified file in the store; only one process at a time fetches it, the others watch."""
        key = file.sha256 or storage.key_of(self.hub, self.model_id, self._commit, file.path)
        partial = storage.partial_path(into, key)

        def watch() -> None:
            progress(min(file.size, storage.size_of(partial)))

        with storage.locked(into, key, watch):
            blob = storage.blob_path(into, key)
            if file.sha256 and blob.exists():
                return blob
            storage.require_space(into, max(0, file.size - storage.size_of(partial)), file.path)
            wanted = Download(
                self._url(file.path), partial, file.size, file.sha256, self._headers, self.stall, self.patience
            )
            with self._asking(), self._client() as client:
                sha256 = download(client, wanted, progress, _raise_for_status)
            return storage.keep(partial, into, sha256)

    @cached_property
    def _info(self) -> ModelInfo:
        with self._asking(HUB_ERRORS + NOT_A_HUB):
            validate_repo_id(self.model_id)
            return HfApi(endpoint=self.hub, token=self.token or False, library_name=APP).model_info(
                self.model_id, revision=self.revision or None, files_metadata=True, timeout=self.timeout
            )

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
        return hf_hub_url(self.model_id, path, revision=self._commit, endpoint=self.hub)

    def _client(self) -> httpx2.Client:
        """Follows redirects to the file's real place; the token stays behind when that is another host."""
        return httpx2.Client(timeout=self.timeout, follow_redirects=True)

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


def _harmless(path: str) -> bool:
    """A path that stays inside the folder it is put into."""
    parts = PurePosixPath(path)
    return bool(path) and not parts.is_absolute() and ".." not in parts.parts and "\\" not in path


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)
