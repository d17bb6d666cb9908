"""Quantization by onnxruntime's own tools: what it saves, what it costs, and when it is refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from serving.config import EngineConfig, Options, Refusal
from serving.models import loading
from serving.quantize import agreement, calibration
from serving.quantize import onnx as quantize
from tests.serving.onnx_files import adder, classifier, examples
from tests.serving.running import running

OWN = """
import onnxruntime

class Model:
    def load(self, path):
        self.session = onnxruntime.InferenceSession(path + "/weights/net.onnx")
        open(path + "/weights/beside.txt").close()
        self.kinds = {node.op_type for node in __import__("onnx").load(path + "/weights/net.onnx").graph.node}

    def predict(self, inputs):
        return [sorted(self.kinds)] * len(inputs)
"""


def config(model: Path, cache: Path | None = None, **options: Any) -> EngineConfig:
    return EngineConfig("onnx", str(model), "demo", cache=str(cache or ""), options=Options(**options))


def made(tmp_path: Path, **options: Any) -> quantize.Made:
    given = config(tmp_path, tmp_path / "cache", calibration_dataset="data.npz", **options)
    return quantize.quantized(given, str(tmp_path / "net.onnx"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that int8 serves well, and a calibration dataset."""
    classifier(tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=examples(64))
    return tmp_path


def spoiled(folder: Path) -> Path:
    """A model that int8 spoils: its answers hang on weights that are small beside a few others."""
    classifier(folder / "net.onnx", spread=3000.0)
    rows = examples(64)
    rows[:, 0] = 0
    np.savez(folder / "data.npz", x=rows)
    return folder


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_a_quantized_model_is_smaller_and_keeps_its_answers(folder: Path, method: str) -> None:
    report = made(folder, quantization=method, accuracy_threshold=0.9).report
    assert report["method"] == method
    assert report["bytes"] < report["original_bytes"]
    assert 0.9 <= report["agreement"] <= 1
    assert report["examples"] == 64


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_nothing_is_written_into_the_models_folder(folder: Path, tmp_path: Path, method: str) -> None:
    before = folder.stat().st_mtime_ns
    cache = tmp_path.parent / f"{tmp_path.name}-cache"
    given = config(folder, cache, quantization=method, calibration_dataset="data.npz", accuracy_threshold=0.5)
    quantize.quantized(given, str(folder / "net.onnx"))
    assert folder.stat().st_mtime_ns == before, "a file came or went"


def test_weights_that_lie_apart_and_are_linked_from_a_store_are_quantized_too(folder: Path) -> None:
    whole, weights = onnx.load(folder / "net.onnx"), folder / "net.data"
    onnx.save(whole, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    os.link(weights, folder / "in-the-store")
    first = made(folder, quantization="dynamic", accuracy_threshold=0.9)
    assert first.report["bytes"] < first.report["original_bytes"]
    (folder / "in-the-store").unlink()
    (np.fromfile(weights, np.float32) / 2).tofile(weights)
    assert made(folder, quantization="dynamic", accuracy_threshold=0.5).path != first.path, "other weights"


def test_what_misses_the_threshold_is_refused_with_its_figure(tmp_path: Path) -> None:
    spoiled(tmp_path)
    with pytest.raises(Refusal, match=r"dynamic quantization keeps 0\.\d{4} of the accuracy.*not 0.95") as caught:
        made(tmp_path, quantization="dynamic", accuracy_threshold=0.95)
    assert caught.value.code == 65


def test_it_is_made_once_and_judged_by_each_threshold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(folder, quantization="dynamic", accuracy_threshold=0.5)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", never)
    assert made(folder, quantization="dynamic", accuracy_threshold=0.6).path == first.path
    report = folder / "cache" / "quantized" / Path(first.path).parent.name / "report.json"
    report.write_text(json.dumps({**first.report, "agreement": 0.7}))
    with pytest.raises(Refusal, match=r"keeps 0\.7000"):
        made(folder, quantization="dynamic", accuracy_threshold=0.9)
    classifier(folder / "net.onnx", spread=2.0)
    with pytest.raises(AssertionError, match="made again"):
        made(folder, quantization="dynamic", accuracy_threshold=0.5)


def test_without_a_dataset_nothing_is_claimed(folder: Path) -> None:
    given = config(folder, quantization="dynamic")
    assert quantize.quantized(given, str(folder / "net.onnx")).report["agreement"] is None
    with pytest.raises(Refusal, match="static quantization needs a calibration dataset"):
        quantize.quantized(config(folder, quantization="static"), str(folder / "net.onnx"))


def test_what_cannot_be_quantized_says_so(folder: Path) -> None:
    adder(folder / "plain.onnx", ["batch", 2])
    with pytest.raises(Refusal, match=r"nothing in plain.onnx that dynamic quantization changes"):
        quantize.quantized(config(folder, quantization="dynamic"), str(folder / "plain.onnx"))
    with pytest.raises(Refusal, match=r"net.onnx is not quantized"):
        quantize.quantized(config(folder, quantization="qat"), str(folder / "net.onnx"))
    trained = made(folder, quantization="static", accuracy_threshold=0.5).path
    assert quantize.quantized(config(folder, quantization="qat"), trained).report["method"] == "qat"
    with pytest.raises(Refusal, match="quantized already"):
        quantize.quantized(config(folder, quantization="dynamic"), trained)


def test_weights_loaded_as_int8_are_quantized(folder: Path) -> None:
    found = loading.load(config(folder / "net.onnx", folder / "cache", load_format="int8"))
    assert found.quantization["method"] == "dynamic"


def test_a_served_model_shows_what_was_done_to_it(folder: Path, tmp_path: Path) -> None:
    options = {"quantization": "static", "accuracy_threshold": 0.9, "calibration_dataset": "data.npz"}
    with running(tmp_path / "run", folder, "onnx", cache=str(tmp_path / "cache"), options=options) as server:
        server.until_ready()
        shown = server.ask("/metadata")[1]["quantization"]
        assert (shown["method"], shown["threshold"]) == ("static", 0.9)
        assert "agreement" in server.log.read_text()
        assert server.ask("/predict", {"input": examples(1)[0].tolist()})[0] == 200


def test_a_model_py_is_given_a_folder_with_the_quantized_file(tmp_path: Path) -> None:
    model = tmp_path / "model"
    classifier(model / "weights" / "net.onnx")
    (model / "weights" / "beside.txt").write_text("here")
    (model / "model.py").write_text(OWN)
    (model / "config.json").write_text("{}")
    with running(tmp_path / "run", model, "onnx", options={"quantization": "dynamic"}) as server:
        kinds = server.until_ready().ask("/predict", {"input": 1})[1]["output"]
    assert "MatMulInteger" in kinds


def test_an_engine_that_does_not_quantize_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(OWN)
    given = EngineConfig("python", str(tmp_path), "demo", options=Options(quantization="dynamic"))
    with pytest.raises(Refusal, match="the python engine quantizes nothing itself"):
        loading.load(given)


def rows(*values: Any) -> list[dict[str, Any]]:
    return [{"y": np.asarray(value)} for value in values]


@pytest.mark.parametrize(
    ("original", "quantized", "figure"),
    [
        (rows([0.9, 0.1], [0.2, 0.8]), rows([0.6, 0.4], [0.6, 0.4]), 0.5),  # top-1 of probabilities
        (rows([3.0, 4.0]), rows([3.0, 4.5]), 0.9),  # 1 - 0.5 / 5
        (rows([3.0, 4.0]), rows([-3.0, -4.0]), 0.0),
        (rows(1, 2, 3, 4), rows(1, 2, 3, 5), 0.75),  # labels
        (rows("a", "b"), rows("a", "b"), 1.0),
        (rows([0.0, 0.0]), rows([0.0, 0.1]), 0.0),
        (rows([3.0, 4.0]), rows([float("nan"), 4.0]), 0.0),
        ([{"a": 1, "y": np.asarray([3.0, 4.0])}], [{"a": 1, "y": np.asarray([3.0, 4.5])}], 0.9),  # the lowest
        (
            [{"logits": np.asarray([[5.0, -1.0], [0.1, 0.2]])}],
            [{"logits": np.asarray([[4.0, 1.0], [0.3, 0.2]])}],
            0.5,
        ),
    ],
)
def test_the_formula(original: list[Any], quantized: list[Any], figure: float) -> None:
    assert agreement.agreement(original, quantized) == pytest.approx(figure)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.npz", None, "is not among the model's files"),
        ("../data.npz", None, "is not among the model's files"),
        ("data.csv", "1,2", "must be .npz"),
        ("data.jsonl", "", "is empty"),
        ("data.jsonl", '{"x": 1}\nno', "line 2 of data.jsonl is not JSON"),
        ("data.npz", "no", "cannot be read"),
    ],
)
def test_a_dataset_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    given = config(tmp_path, calibration_dataset=name)
    with pytest.raises(Refusal, match=words):
        calibration.items(calibration.file(given) or Path())
