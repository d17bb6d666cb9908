"""A plain ONNX file is served by its own names, types and shapes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from serving.config import EngineConfig, Refusal
from serving.models import onnx
from serving.models.base import BadInput
from tests.serving.onnx_files import adder, classifier, examples
from tests.serving.running import Server, at_once, running


def loaded(path: Path) -> onnx.OnnxModel:
    return onnx.load(EngineConfig("onnx", str(path), "demo"), str(path))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Server]:
    model = classifier(tmp_path_factory.mktemp("model") / "weights" / "net.onnx").parent.parent
    with pytest.MonkeyPatch.context() as outside:
        outside.setenv("HOME", str(home))
        outside.delenv("CI", raising=False)  # where onnxruntime reports nothing anyway
        with running(tmp_path_factory.mktemp("run"), model, "onnx", parallel=8, workers=1) as started:
            yield started.until_ready()


def test_the_engine_reports_to_nobody(server: Server, home: Path) -> None:
    """onnxruntime keeps what it will send to its makers under the home."""
    server.ask("/predict", {"input": {"x": examples(1)[0].tolist()}})
    assert not list(home.iterdir())


def test_a_folder_with_one_file_is_served_by_input_name(server: Server) -> None:
    row = examples(1)[0].tolist()
    status, answer = server.ask("/predict", {"input": {"x": row}})
    assert status == 200
    assert sum(answer["output"]["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert server.ask("/predict", {"input": row}) == (200, answer), "a lone input needs no name"


def test_its_inputs_and_outputs_are_shown(server: Server) -> None:
    _, shown = server.ask("/metadata")
    assert shown["inputs"] == [{"name": "x", "dtype": "float32", "shape": [64]}]
    assert shown["outputs"] == [{"name": "probabilities", "dtype": "float32", "shape": [4]}]
    assert shown["batched"] is True
    assert server.ask("/v1/models")[1]["data"][0]["capabilities"] == ["predict"]
    assert server.ask("/v1/chat/completions", {"messages": []})[1]["error"]["code"] == "not_supported"


def test_requests_are_batched_and_each_gets_its_own_answer(server: Server) -> None:
    rows = examples(8)
    alone = [server.ask("/predict", {"input": row.tolist()})[1]["output"]["probabilities"] for row in rows]
    _, whole = server.ask("/predict", {"inputs": [row.tolist() for row in rows]})
    np.testing.assert_allclose([one["probabilities"] for one in whole["outputs"]], alone, rtol=1e-4)
    assert server.metric('batch_size_bucket{kind="predict",le="4.0"}') < server.metric(
        'batch_size_bucket{kind="predict",le="8.0"}'
    )
    calls = {
        str(index): lambda row=row: server.ask("/predict", {"input": row.tolist()})
        for index, row in enumerate(rows)
    }
    answers = at_once(calls)
    np.testing.assert_allclose(
        [answers[str(index)][1]["output"]["probabilities"] for index in range(8)], alone, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1.0] * 63, "x: must have the shape [64], not [63]"),
        ([[1.0] * 64], "x: must have the shape [64], not [1, 64]"),
        ([[1.0], [1.0, 2.0]], "x: rows of different lengths are no tensor"),
        (["a"] * 64, "x: must be float32, not string"),
        ([True] * 64, "x: must be float32, not bool"),
        ([None] * 64, "x: only numbers, booleans and texts make a tensor"),
        ({"y": [1.0] * 64}, "missing: x"),
        ({"x": [1.0] * 64, "y": 1}, "there is no input y; there is x"),
    ],
)
def test_an_input_that_does_not_fit_is_422_and_says_what_would(server: Server, given: Any, words: str) -> None:
    status, answer = server.ask("/predict", {"input": given})
    assert (status, answer["error"]["message"]) == (422, words)


def test_a_bad_input_spoils_no_others(server: Server) -> None:
    good = examples(1)[0].tolist()
    status, answer = server.ask("/predict", {"inputs": [good, [1.0], good]})
    assert status == 207
    assert answer["outputs"][1] is None
    assert answer["outputs"][0] == answer["outputs"][2] != None  # noqa: E711  both are there
    assert [one["index"] for one in answer["errors"]] == [1]


def test_items_of_several_shapes_are_each_worked_on_with_their_like(tmp_path: Path) -> None:
    model = loaded(adder(tmp_path / "a.onnx", ["batch", "length"]))
    outputs = model.predict([{"a": [1], "b": [2]}, {"a": [1, 2], "b": [3, 4]}, {"a": [5], "b": [6]}])
    assert [one["sum"].tolist() for one in outputs] == [[3], [4, 6], [11]]


def test_a_fixed_shape_is_given_whole(tmp_path: Path) -> None:
    model = loaded(adder(tmp_path / "a.onnx", [1, 2], TensorProto.FLOAT))
    assert model.metadata()["inputs"][0]["shape"] == [1, 2]
    assert model.predict([{"a": [[1, 2]], "b": [[3, 4]]}] * 2)[1]["sum"].tolist() == [[4.0, 6.0]]


def test_integers_must_be_integers_that_fit(tmp_path: Path) -> None:
    model = loaded(adder(tmp_path / "a.onnx", [2], TensorProto.INT8))
    with pytest.raises(BadInput, match="a: must be int8, not float64"):
        model.predict([{"a": [1.5, 2], "b": [1, 2]}])
    with pytest.raises(BadInput, match="b: int8 holds -128 to 127"):
        model.predict([{"a": [1, 2], "b": [1, 300]}])


def test_a_number_that_is_none_becomes_null(server: Server) -> None:
    text = json.dumps(server.ask("/predict", {"input": [1e38] * 64}))
    assert "null" in text
    assert "NaN" not in text


def test_what_is_no_onnx_is_65(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(Refusal, match=r"onnxruntime cannot load a.onnx") as caught:
        loaded(tmp_path / "a.onnx")
    assert caught.value.code == 65


def test_of_several_files_none_is_guessed(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        classifier(tmp_path / name)
    with pytest.raises(Refusal, match=r"several ONNX models \(a.onnx, b.onnx\)"):
        onnx.find(str(tmp_path))
    assert onnx.find(str(tmp_path / "b.onnx")) == str(tmp_path / "b.onnx")


def test_a_file_is_found_in_any_folder_the_nearest_first(tmp_path: Path) -> None:
    deep = classifier(tmp_path / "onnx" / "cpu" / "net.onnx")
    assert onnx.find(str(tmp_path)) == str(deep)
    near = classifier(tmp_path / "net.onnx")
    assert onnx.find(str(tmp_path)) == str(near)
