"""What a folder is for an engine, and what it lacks, without running a line of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from endpoints.sources.base import SourceFile
from endpoints.sources.layout import Layout, kinds_of, layout_of, main_file

MODEL = b"class Model:\n    def load(self, path): ...\n    def predict(self, inputs): return inputs\n"
SEED = {
    "model.py": MODEL,
    "requirements.txt": b"numpy>=1.26  # arrays\n\n# nothing else\n",
    "config.json": b'{"model_type": "bert"}',
    "weights/model.safetensors": b"x" * 9,
    "tokenizer/tokenizer.json": b"{}",
}


def judged(contents: Mapping[str, bytes], engine: str = "") -> Layout:
    files = [SourceFile(path, len(data)) for path, data in contents.items()]
    return layout_of(files, lambda path, at, size: contents[path][at : at + size], engine)


def said(layout: Layout, level: str = "bad") -> str:
    return " | ".join(note.said for note in layout.notes if note.level == level)


def test_the_seeds_layout_is_good_for_every_engine_that_loads_it_and_says_so_of_each_file() -> None:
    for engine in ("pytorch", "tensorflow", "onnx", "python"):
        layout = judged(SEED, engine)
        assert (layout.kind, layout.level, layout.methods) == ("model_py", "ok", ("load", "predict")), said(layout)
        assert {note.path for note in layout.notes} == set(SEED)
        assert layout.requirements.startswith("numpy>=1.26")
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize(
    ("engine", "paths", "kind"),
    [
        ("llama.cpp", ["model-Q4_1.gguf", "README.md"], "gguf"),
        ("onnx", ["onnx/model.onnx"], "onnx"),
        ("vllm", ["config.json", "model.safetensors", "tokenizer.json"], "transformers"),
        ("pytorch", ["config.json", "pytorch_model.bin", "tokenizer.json"], "transformers"),
        ("vllm", ["config.json", "model.safetensors", "model.py", "tokenizer.json"], "transformers"),
        ("pytorch", ["config.json", "model.safetensors", "model.py", "tokenizer.json"], "model_py"),
    ],
)
def test_each_engine_takes_the_kind_it_can_load(engine: str, paths: list[str], kind: str) -> None:
    contents = {path: MODEL if path == "model.py" else b"{}" for path in paths}
    layout = judged(contents, engine)
    assert (layout.kind, layout.problems) == (kind, ())


@pytest.mark.parametrize(
    ("engine", "paths", "words"),
    [
        (
            "llama.cpp",
            ["config.json", "model.safetensors"],
            "needs a GGUF file. This folder is what transformers writes",
        ),
        ("vllm", ["model.gguf"], "config.json and safetensors at the top"),
        ("onnx", ["weights/model.pt"], "needs an .onnx file"),
        ("tensorflow", ["saved_model.pb"], "needs model.py"),
        ("llama.cpp", ["mmproj-model.gguf"], "needs a GGUF file"),
    ],
)
def test_what_an_engine_lacks_refuses_with_what_it_needs(engine: str, paths: list[str], words: str) -> None:
    assert words in said(judged(dict.fromkeys(paths, b"{}"), engine))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"class Mode: pass", "no class Model"),
        (b"class Model:\n  def predict(self, inputs): ...", "no method load"),
        (b"class Model:\n  def load(self, path): ...", "no method predict, chat, stream or embed"),
        (
            b"class Model:\n  def load(self): ...\n  def predict(self, inputs): ...",
            "Line 2: the server calls load(self, path)",
        ),
        (
            b"class Model:\n  def load(self, path): ...\n  def predict(self): ...",
            "Line 3: the server calls predict(self, inputs)",
        ),
        (
            b"class Model:\n  def load(self, path): ...\n  async def chat(self, messages): ...",
            "Line 3: chat is async",
        ),
        (b"class Model:\n  def load(self, path) ...", "Line 2 is not Python"),
        (b"x = '\xff'", "not UTF-8 text: byte 5"),
        (b"x = 1\0", "is not Python"),
        (b"(" * 5000 + b")" * 5000, "Python"),
    ],
)
def test_a_wrong_model_py_is_told_with_its_line(source: bytes, words: str) -> None:
    assert words in said(judged(SEED | {"model.py": source}, "python"))


def test_a_class_that_inherits_or_comes_from_elsewhere_is_given_the_benefit_of_the_doubt() -> None:
    for source in (b"class Model(Base): ...", b"from mine import Model", b"Model = make()"):
        assert not judged(SEED | {"model.py": source}, "python").problems
    generous = (
        b"class Model:\n  def load(self, path, device='cpu'): ...\n  def predict(self, *inputs, **more): ...\n"
    )
    assert not judged(SEED | {"model.py": generous}, "python").problems


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-e .", "Line 2: -e can't be used"),
        ("--index-url=https://me:hunter2@packages.invalid/list", "Line 2: --index-url can't"),
        ("--extra-index-url https://packages.invalid", "--extra-index-url"),
        ("-r more.txt", "-r can't"),
        ("https://example.com/a.whl", "an address without a name"),
        ("./wheels/a.whl", "A path"),
        ("mine @ https://me:hunter2@example.com/a.whl", "address of mine holds credentials"),
        ("mine @ git+https://hunter2@example.com/mine", "holds credentials"),
        ("mine @ file:///tmp/mine", "another machine"),
        ("two words", "no requirement “two words”"),
        ("numpy >= = 1", "no requirement"),
    ],
)
def test_a_requirement_that_names_more_than_a_package_is_refused_and_tells_no_password(
    line: str, words: str
) -> None:
    text = said(judged(SEED | {"requirements.txt": f"numpy\n{line}\n".encode()}, "python"))
    assert words in text
    assert "hunter2" not in text


def test_requirements_may_span_lines_and_carry_markers_and_hashes() -> None:
    lines = 'numpy==1.26 \\\n  --hash=sha256:ab\ntorch[cpu]>=2; python_version < "3.15"\nmine @ git+ssh://git@example.com/m\n'
    layout = judged(SEED | {"requirements.txt": lines.encode()}, "python")
    assert not layout.problems
    assert "3 requirements" in said(layout, "ok")
    assert "mine comes from an address" in said(layout, "warn")


def test_configurations_must_be_json_objects_and_weights_not_empty() -> None:
    assert "must be a JSON object" in said(judged(SEED | {"config.json": b"[]"}, "python"))
    assert "is not JSON" in said(judged(SEED | {"weights/config.json": b"{"}, "python"))
    assert "weights/model.safetensors: The file is empty" in said(
        judged(SEED | {"weights/model.safetensors": b""})
    )


def test_pickles_and_missing_weights_and_tokenizers_are_warned_of_not_refused() -> None:
    layout = judged(SEED | {"weights/pytorch_model.bin": b"x"}, "pytorch")
    assert "Prefer safetensors" in said(layout, "warn")
    bare = {path: data for path, data in SEED.items() if not path.startswith("weights/")}
    assert "There are no weights" in said(judged(bare, "pytorch"), "warn")
    assert "There is no tokenizer" in said(
        judged({"config.json": b"{}", "model.safetensors": b"x"}, "vllm"), "warn"
    )
    assert not layout.problems


def test_what_transformers_writes_beside_the_weights_is_known_by_what_it_is_for() -> None:
    names = ["chat_template.jinja", "generation_config.json", "special_tokens_map.json", "tekken.json"]
    layout = judged(dict.fromkeys(["config.json", "model.safetensors", *names], b"{}"), "vllm")
    assert {note.path: note.text for note in layout.notes if note.path in names} == {
        "chat_template.jinja": "How a conversation becomes one text.",
        "generation_config.json": "How text is generated where a call leaves it open.",
        "special_tokens_map.json": "Part of the tokenizer.",
        "tekken.json": "Part of the tokenizer.",
    }
    assert layout.level == "ok"


def test_a_folder_of_many_files_keeps_a_short_report_with_the_worst_first() -> None:
    many = {f"data/{number}.txt": b"x" for number in range(5000)} | SEED | {"config.json": b"["}
    layout = judged(many, "python")
    assert len(layout.notes) == 300
    assert layout.notes[0].path == "config.json"
    assert "4,706 more files" in layout.notes[-1].text


def test_one_file_stands_for_the_folder() -> None:
    def main(*paths: str) -> str:
        files = [SourceFile(path, 1) for path in paths]
        return main_file(files, next(iter(kinds_of(files)), "unknown"))

    assert main("README.md", "b.gguf", "a.gguf") == "a.gguf"
    assert main("model.py", "weights/a.gguf") == "model.py"
    assert main("config.json", "model.safetensors") == "config.json"
    assert main("z.txt", "onnx/model.onnx") == "onnx/model.onnx"
    assert main("z.txt", "a.txt") == "a.txt"
