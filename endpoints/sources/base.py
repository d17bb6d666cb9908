"""What every place a model can come from must answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from endpoints.gguf import GGUFFacts, NotGGUF, merge_shards, read_facts
from endpoints.safetensors import Weights
from endpoints.sources.layout import Layout

Progress = Callable[[int, int], None]
"""`progress(done, total)` in bytes, several times a second; what it raises ends the fetch (cancelling)."""


@dataclass(frozen=True)
class SourceFile:
    """A file of the model by its path in the source; `sha256` where the source declares one.

    `tag` is the source's own name for just this content: a blob's id, an ETag, a generation.
    """

    path: str
    size: int
    sha256: str | None = None
    tag: str = ""


@dataclass(frozen=True)
class Choice:
    """One model a person can choose: a GGUF file, or the shards of one, first shard first."""

    path: str
    files: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Found:
    """What a successful Test Connection saw. `revision` is pinned: what it names never changes.

    For an engine of GGUF files: the choices, the default one and its facts. For the others all files are the
    model, there is nothing to choose, and `weights` says what is known of it without fetching.
    """

    revision: str
    files: tuple[SourceFile, ...]
    choices: tuple[Choice, ...]
    default_file: str
    facts: GGUFFacts | None
    license: str = ""
    gated: bool = False
    weights: Weights | None = None
    layout: Layout | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a JSON column."""
        facts = self.facts.to_dict() if self.facts else None
        choices = [asdict(choice) | {"files": list(choice.files)} for choice in self.choices]
        files = [asdict(file) for file in self.files]
        weights = self.weights.to_dict() if self.weights else None
        layout = self.layout.to_dict() if self.layout else None
        told = {"facts": facts, "weights": weights, "layout": layout}
        return asdict(self) | {"files": files, "choices": choices, **told}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Found":
        choices = tuple(Choice(item["path"], tuple(item["files"]), item["size"]) for item in data["choices"])
        return cls(
            revision=data["revision"],
            files=tuple(SourceFile(**item) for item in data["files"]),
            choices=choices,
            default_file=data["default_file"],
            facts=GGUFFacts.from_dict(data["facts"]) if data["facts"] else None,
            license=data["license"] or "",
            gated=data["gated"],
            weights=Weights.from_dict(data["weights"]) if data.get("weights") else None,
            layout=Layout.from_dict(data["layout"]) if data.get("layout") else None,
        )


class SourceProblem(Exception):
    """Why a model can't be had: `str()` says what is wrong and what to do.

    `code` is stable for programs; `field` is the setting to change ("" when it is none of them);
    `passing` says that the same attempt may work later; `offer` is a value that would mend the field, once a
    person has checked it.
    """

    def __init__(
        self, code: str, message: str, field: str = "", *, passing: bool = False, offer: str = ""
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.field, self.passing, self.offer = code, message, field, passing, offer


class Source(Protocol):
    """A model somewhere. All of it may be called again at any time, from any process."""

    def check(self, engine: str = "llama.cpp") -> Found:
        """Test Connection: reach the source, pin the revision, read the headers of what this engine would load.

        SourceProblem if that can't be done.
        """
        ...

    def files(self) -> list[SourceFile]:
        """What the source holds at this revision."""
        ...

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A piece of one file, without fetching it; fewer bytes only at its end."""
        ...

    def at_hand(self, into: Path, files: Sequence[str]) -> Path | None:
        """The local path of the first file if all lie here and are known to be whole, at no cost; else None."""
        ...

    def fetch(self, into: Path, progress: Progress, files: Sequence[str]) -> Path:
        """Bring these files to this machine and answer the local path of the first one.

        `into` is the root of the store. Checked against the declared size and digest; a second call is
        cheap; a call that was cut off goes on where it ended. SourceProblem if it can't be done.
        """
        ...


def read_model(source: Source, choice: Choice, sizes: Mapping[str, int]) -> GGUFFacts:
    """The facts of a choice, read from the headers of its files. SourceProblem("not_gguf") if it is none."""
    shards = []
    for path in choice.files:
        try:
            shards.append(read_facts(lambda at, size, path=path: source.read(path, at, size), sizes[path]))  # type: ignore[misc]
        except NotGGUF as refused:
            raise SourceProblem("not_gguf", f"{path}: {refused}", "file") from None
    return merge_shards(shards)
