"""What a model's folder holds, judged against the layout that our containers load.

    model.py           class Model: load(self, path), predict(self, inputs), where it makes sense chat and stream
    requirements.txt   what it needs beside its framework
    config.json        its configuration, a JSON object
    weights/           its weights
    tokenizer/         its tokenizer

A GGUF file, a plain ONNX model and a folder as transformers writes it need no model.py. Nothing here is run:
sources are parsed, and of weights only names are looked at (`scan` looks into them once they are fetched).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from endpoints.sources.contents import json_notes, model_class, requirement_notes
from endpoints.sources.note import BAD, NOTE, OK, WARN, Note, worst

if TYPE_CHECKING:
    from endpoints.sources.base import SourceFile  # which holds a Layout

Read = Callable[[str, int, int], bytes]

GGUF, ONNX, MODEL_PY, TRANSFORMERS, UNKNOWN = "gguf", "onnx", "model_py", "transformers", "unknown"
# engine → the kinds it can load, the one it looks for first in front; an engine that isn't here takes any
SUITS: Final[Mapping[str, tuple[str, ...]]] = {
    "llama.cpp": (GGUF,),
    "vllm": (TRANSFORMERS,),
    "pytorch": (MODEL_PY, TRANSFORMERS),
    "tensorflow": (MODEL_PY,),
    "onnx": (MODEL_PY, ONNX),
    "python": (MODEL_PY,),
}
NATURAL: Final[Mapping[str, str]] = {GGUF: "llama.cpp", ONNX: "onnx", MODEL_PY: "python", TRANSFORMERS: "vllm"}
NEEDS: Final[Mapping[str, str]] = {
    "llama.cpp": "llama.cpp needs a GGUF file.",
    "vllm": "vLLM needs config.json and safetensors at the top of the folder, as transformers writes them.",
    "pytorch": "PyTorch needs model.py with a class Model, or config.json and safetensors at the top.",
    "tensorflow": "TensorFlow needs model.py with a class Model.",
    "onnx": "ONNX needs an .onnx file, or model.py with a class Model.",
    "python": "It needs model.py with a class Model.",
}
PICKLED: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
WEIGHTS: Final = PICKLED | {".safetensors", ".gguf", ".onnx", ".h5", ".keras", ".npz", ".npy", ".pb"}
TOKENIZERS: Final = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tekken.json", "vocab.txt", "vocab.json"}
)
TOKENIZING: Final = TOKENIZERS | {"merges.txt", "special_tokens_map.json", "added_tokens.json"}
# name → what it's for, of the files that transformers writes beside the weights
BESIDE: Final[Mapping[str, str]] = {
    "generation_config.json": "How text is generated where a call leaves it open.",
    "chat_template.jinja": "How a conversation becomes one text.",
    "chat_template.json": "How a conversation becomes one text.",
    "preprocessor_config.json": "How images and sounds are read.",
    "processor_config.json": "How images and sounds are read.",
    "model.safetensors.index.json": "Which weights lie in which file.",
    "pytorch_model.bin.index.json": "Which weights lie in which file.",
}
MOST_TEXT: Final = 4 << 20  # bytes of a file that is read whole
MOST_NOTES: Final = 300


@dataclass(frozen=True)
class Layout:
    """What a folder is, for one engine. `methods` are those of model.py's class; `requirements` its text."""

    kind: str
    engine: str
    notes: tuple[Note, ...]
    methods: tuple[str, ...] = ()
    requirements: str = ""

    @property
    def level(self) -> str:
        return worst(self.notes)

    @property
    def problems(self) -> tuple[Note, ...]:
        """What keeps this engine from loading it."""
        return tuple(note for note in self.notes if note.level == BAD)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON column."""
        return asdict(self) | {"notes": [asdict(note) for note in self.notes], "methods": list(self.methods)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layout:
        notes = tuple(Note(**note) for note in data["notes"])
        return cls(data["kind"], data["engine"], notes, tuple(data["methods"]), data["requirements"])


def layout_of(files: Sequence[SourceFile], read: Read, engine: str = "") -> Layout:
    """The report for an engine; "" asks for the one that suits best. Paths are relative to the model's folder.

    What the engine needs and lacks is a "bad" note, of the path that is missing or wrong.
    """
    kinds = kinds_of(files)
    suits = SUITS.get(engine, ())
    kind = next((one for one in suits if one in kinds), next(iter(kinds), UNKNOWN))
    engine = engine or NATURAL.get(kind, "")
    folder = _Folder(files, read, engine, kind)
    notes = [*folder.missing(), *(note for file in folder.files for note in folder.of(file))]
    if len(notes) > MOST_NOTES:
        notes.sort(key=lambda note: [BAD, WARN, NOTE, OK].index(note.level))
        more = Note("", NOTE, f"{len(notes) - MOST_NOTES + 1:,} more files are not listed here.")
        notes = [*notes[: MOST_NOTES - 1], more]
    return Layout(kind, engine, tuple(notes), folder.methods, folder.requirements)


def kinds_of(files: Sequence[SourceFile]) -> list[str]:
    """Everything that the folder could be taken for, the most telling first."""
    paths = {file.path for file in files}
    top = {path for path in paths if "/" not in path}
    return [
        kind
        for kind, found in (
            (MODEL_PY, "model.py" in top),
            (GGUF, any(_gguf_model(path) for path in paths)),
            (TRANSFORMERS, "config.json" in top and any(_transformers_weights(path) for path in top)),
            (ONNX, any(_onnx_model(path) for path in paths)),
        )
        if found
    ]


def main_file(files: Sequence[SourceFile], kind: str) -> str:
    """The path that stands for the whole folder."""
    paths = sorted(file.path for file in files)
    wanted = {MODEL_PY: "model.py", TRANSFORMERS: "config.json"}.get(kind)
    telling = {GGUF: _gguf_model, ONNX: _onnx_model}.get(kind)
    return wanted or next((path for path in paths if telling and telling(path)), paths[0])


def _gguf_model(path: str) -> bool:
    name = path.rsplit("/", maxsplit=1)[-1].lower()
    return name.endswith(".gguf") and not name.startswith(("mmproj", "imatrix", "ggml-vocab"))


def _onnx_model(path: str) -> bool:
    return path.lower().endswith(".onnx")


def _transformers_weights(path: str) -> bool:
    return path.endswith(".safetensors") or (path.startswith("pytorch_model") and path.endswith(".bin"))


class _Folder:
    """One look at a folder: what is missing, and a note for every file."""

    def __init__(self, files: Sequence[SourceFile], read: Read, engine: str, kind: str) -> None:
        self.files, self.engine, self.kind = sorted(files, key=lambda file: file.path), engine, kind
        self._read, self._paths = read, {file.path for file in files}
        self.methods: tuple[str, ...] = ()
        self.requirements = ""

    def missing(self) -> list[Note]:
        """What isn't there and should be."""
        suits = SUITS.get(self.engine)
        if suits and self.kind not in suits:
            return [Note("", BAD, NEEDS[self.engine], f"This folder {self._is()}. Choose what can load it.")]
        if self.kind == UNKNOWN and not suits:
            return [
                Note(
                    "",
                    WARN,
                    "No model is recognised here.",
                    "Our containers load model.py, GGUF, ONNX, and folders of transformers.",
                )
            ]
        notes = []
        if self.kind == MODEL_PY and not self._has_weights():
            level = NOTE if self.engine == "python" else WARN
            notes.append(
                Note("weights/", level, "There are no weights.", "Put what model.py loads into weights/.")
            )
        if self.kind == TRANSFORMERS and not TOKENIZERS & {PurePosixPath(path).name for path in self._paths}:
            notes.append(
                Note("tokenizer/", WARN, "There is no tokenizer.", "Text can't be turned into tokens without.")
            )
        return notes

    def of(self, file: SourceFile) -> list[Note]:
        name, suffix = PurePosixPath(file.path).name, PurePosixPath(file.path).suffix.lower()
        if file.size == 0 and suffix in WEIGHTS | {".json"}:
            return [Note(file.path, BAD, "The file is empty.", "Upload it again.")]
        if file.path == "model.py" and self.kind == MODEL_PY:
            return self._model(file)
        if file.path == "requirements.txt" and self.kind == MODEL_PY:
            return self._requirements(file)
        if name == "config.json" and file.path in ("config.json", "weights/config.json"):
            return self._text(file, lambda text: json_notes(file.path, text))
        if suffix in PICKLED:
            todo = "Prefer safetensors. It is looked through before it is loaded."
            return [Note(file.path, WARN, "Pickled weights can run code when they are loaded.", todo)]
        return [Note(file.path, OK if self._known(file.path, suffix) else NOTE, self._role(file.path, suffix))]

    def _model(self, file: SourceFile) -> list[Note]:
        def judge(text: str) -> list[Note]:
            self.methods, notes = model_class(file.path, text)
            return notes

        return self._text(file, judge)

    def _requirements(self, file: SourceFile) -> list[Note]:
        def judge(text: str) -> list[Note]:
            self.requirements = text
            return requirement_notes(file.path, text)

        return self._text(file, judge)

    def _text(self, file: SourceFile, judge: Callable[[str], list[Note]]) -> list[Note]:
        if file.size > MOST_TEXT:
            return [
                Note(file.path, BAD, f"It has {file.size:,} bytes; {MOST_TEXT:,} may be read.", "Make it smaller.")
            ]
        try:
            text = self._read(file.path, 0, file.size).decode("utf-8-sig") if file.size else ""
        except UnicodeDecodeError as wrong:
            return [
                Note(file.path, BAD, f"It is not UTF-8 text: byte {wrong.start} is wrong.", "Save it as UTF-8.")
            ]
        return judge(text)

    def _has_weights(self) -> bool:
        return any(
            PurePosixPath(path).suffix.lower() in WEIGHTS or path.startswith("weights/") for path in self._paths
        )

    def _is(self) -> str:
        return {
            GGUF: "holds a GGUF model",
            ONNX: "holds an ONNX model",
            MODEL_PY: "holds a model.py",
            TRANSFORMERS: "is what transformers writes",
        }.get(self.kind, "holds none of what our containers load")

    def _known(self, path: str, suffix: str) -> bool:
        return (
            suffix in WEIGHTS
            or path.split("/", maxsplit=1)[0] in ("weights", "tokenizer")
            or (name := path.rsplit("/", maxsplit=1)[-1]) in TOKENIZING
            or name in BESIDE
        )

    def _role(self, path: str, suffix: str) -> str:
        if suffix in WEIGHTS:
            return {
                ".gguf": "GGUF weights.",
                ".onnx": "An ONNX model.",
                ".safetensors": "Safetensors weights.",
            }.get(suffix, "Weights.")
        name = path.rsplit("/", maxsplit=1)[-1]
        if name in BESIDE:
            return BESIDE[name]
        if path.startswith("tokenizer/") or name in TOKENIZING:
            return "Part of the tokenizer."
        if path.startswith("weights/"):
            return "Lies with the weights."
        return "Not part of the layout; it lies beside the model as it is."
