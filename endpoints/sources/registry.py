"""A model version of our own registry: its files lie in the store already and are used where they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoints.gguf import GGUFFacts
from endpoints.sources import store as storage
from endpoints.sources.base import Found, Progress, SourceFile, SourceProblem, read_model
from endpoints.sources.choices import chosen, model_choices, nothing_to_run
from endpoints.sources.looking import GGUF_ENGINES, look


@dataclass(frozen=True)
class RegistrySource:
    """`root` is the version's folder, `main` its main file; both it and the declared files by paths within."""

    root: Path
    main: str
    declared: tuple[SourceFile, ...]
    version: str
    store: Path
    facts: GGUFFacts | None = None  # as read when it was registered; reading a large header takes a while

    @classmethod
    def of(cls, spec: Mapping[str, Any], store: Path) -> "RegistrySource":
        """From the version's plain facts: path (absolute, or relative to the store), files, version."""
        files = spec["files"]
        declared = tuple(SourceFile(str(file["path"]), int(file["size"]), file.get("sha256")) for file in files)
        facts = GGUFFacts.from_dict(spec["facts"]) if spec.get("facts") else None
        path = str(store / spec["path"])
        main = main_of(path, [file.path for file in declared])
        return cls(Path(path.removesuffix(main)), main, declared, str(spec.get("version", "")), store, facts)

    def check(self, engine: str = "llama.cpp") -> Found:
        for file in self.declared:
            self._require(file)
        if engine not in GGUF_ENGINES:
            return look(self, revision=self.version, engine=engine, where="This model version")
        choices = model_choices(self.declared)
        if not choices:
            raise nothing_to_run(self.declared, "This model version")
        choice = chosen(choices, self.main)
        facts = self.facts or read_model(self, choice, {file.path: file.size for file in self.declared})
        return Found(self.version, self.declared, choices, choice.path, facts, facts.license)

    def files(self) -> list[SourceFile]:
        return list(self.declared)

    def read(self, path: str, offset: int, size: int) -> bytes:
        with self.local(path).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def at_hand(self, into: Path, files: Sequence[str]) -> Path | None:
        wanted = [file for file in self.declared if file.path in files]
        known = [
            file.sha256 is not None and storage.is_verified(self.local(file.path), self.store, file.sha256)
            for file in wanted
        ]
        return self.local(files[0]) if known and all(known) else None

    def fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        """Nothing is copied: the files are verified, once for as long as they stay unchanged."""
        wanted = [file for file in self.declared if file.path in files]
        total, before = sum(file.size for file in wanted), 0
        progress(0, total)
        for file in wanted:
            self._verify(file, lambda done, before=before: progress(before + done, total))
            before += file.size
            progress(before, total)
        return self.local(files[0])

    def _verify(self, file: SourceFile, progress: Any) -> None:
        self._require(file)
        if file.sha256 and storage.digest(self.local(file.path), self.store, progress) != file.sha256:
            raise SourceProblem(
                "damaged",
                f"{file.path} is not what was registered: its digest differs. Register the model again.",
                "model",
            )

    def _require(self, file: SourceFile) -> None:
        path = self.local(file.path)
        if not path.is_file():
            raise SourceProblem(
                "missing", f"{file.path} is gone from the model store. Register the model again.", "model"
            )
        size = path.stat().st_size
        if size != file.size:
            raise SourceProblem(
                "damaged",
                f"{file.path} has {size:,} bytes, {file.size:,} were registered. Register the model again.",
                "model",
            )

    def local(self, path: str) -> Path:
        """Where a declared file lies. SourceProblem for a path that was not declared."""
        if path not in {file.path for file in self.declared}:
            raise SourceProblem("no_file", f"There is no file “{path}” in this model version.", "file")
        return self.root / path


def main_of(path: str, declared: Sequence[str]) -> str:
    """The declared path that a main file's whole path ends with; its name where none does."""
    within = [one for one in declared if path == one or path.endswith(f"/{one}")]
    return max(within, key=len, default=path.rpartition("/")[2])
