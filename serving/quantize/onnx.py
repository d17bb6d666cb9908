"""Quantization of an ONNX file by onnxruntime's own tools, kept in a cache and checked on the calibration set."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from serving.config import EngineConfig, Refusal
from serving.log import say
from serving.models.onnx import OnnxModel, session, stacked
from serving.models.tensors import named
from serving.quantize import agreement, calibration

# What is quantized dynamically. Convolutions are not: their integer form is slower than the original on CPUs.
DYNAMIC = ["MatMul", "Gemm", "Gather", "LSTM", "Attention", "EmbedLayerNormalization"]
MARKS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "DynamicQuantizeLSTM"}
RUN_AT_ONCE = 32


@dataclass(frozen=True)
class Made:
    """The file to serve, and what /metadata says of it."""

    path: str
    report: Mapping[str, Any]


def quantized(config: EngineConfig, path: str) -> Made:
    """The quantized form of this file, out of the cache if it was made before.

    Refusal 65 if it can't be quantized as asked, or its agreement misses the threshold.
    """
    method, dataset = config.options.method, calibration.file(config)
    marked = _marked(path)
    if method == "qat" or (marked and config.options.quantization == "none"):
        return _trained(path, marked)
    if marked:
        raise Refusal(65, f"{Path(path).name} is quantized already: ask for no quantization, or for qat")
    if method == "static" and dataset is None:
        raise Refusal(65, "static quantization needs a calibration dataset: name one among the model's files")
    name = calibration.digest(
        Path(path), *sorted(_beside(Path(path))), dataset, words=(method, onnxruntime.__version__)
    )
    root = config.cache or tempfile.mkdtemp(prefix="tir-")
    folder = Path(root) / "quantized" / name
    if (folder / "report.json").is_file():
        say("the quantized model is in the cache")
    else:
        _make(config, path, dataset, folder)
    return _accepted(config, folder)


def _accepted(config: EngineConfig, folder: Path) -> Made:
    """What was made, if it is good enough for the threshold of this start."""
    report = json.loads((folder / "report.json").read_text("utf-8"))
    found, threshold = report["agreement"], config.options.accuracy_threshold
    size = f"{report['original_bytes']:,} to {report['bytes']:,} bytes"
    if found is None:
        say(f"{report['method']} quantization: {size}; not checked, as there is no calibration dataset")
    else:
        agreement.check(found, threshold, f"{report['method']} quantization")
        say(f"{report['method']} quantization: {size}; agreement {found:.4f}, at least {threshold:g} asked for")
    return Made(str(folder / "model.onnx"), {**report, "threshold": threshold})


def _make(config: EngineConfig, path: str, dataset: Path | None, folder: Path) -> None:
    """Quantize into the folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
        made = Path(draft) / "model.onnx"
        original = OnnxModel(session(config, path), path)
        items = calibration.items(dataset) if dataset else []
        _write(config.options.method, path, made, Reader(original, items))
        if not _marked(str(made)):
            words = f"there is nothing in {Path(path).name} that {config.options.method} quantization changes"
            raise Refusal(65, words)
        report = {
            "method": config.options.method,
            "data_type": "int8",
            "original_bytes": _bytes(Path(path)),
            "bytes": _bytes(made),
            "agreement": _compared(original, OnnxModel(session(config, str(made)), str(made)), items),
            "examples": len(items),
        }
        (Path(draft) / "report.json").write_text(json.dumps(report))
        _kept(Path(draft), folder)


def _write(method: str, path: str, made: Path, reader: Reader) -> None:
    """Quantize a copy that has its shapes written in: the tools want it so, and write beside what they read."""
    apart = bool(_beside(Path(path)))  # then the weights are too large for one file, perhaps still
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        source, prepared = Path(folder) / "source", Path(folder) / "model.onnx"
        for one in (Path(path), *_beside(Path(path))):  # onnx takes no links, as a store of models is made of
            copy = source / one.relative_to(Path(path).parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one, copy)
        source /= Path(path).name
        quant_pre_process(source, prepared, skip_symbolic_shape=True, save_as_external_data=apart)
        if method == "dynamic":
            options = {"op_types_to_quantize": DYNAMIC, "use_external_data_format": apart}
            quantization.quantize_dynamic(prepared, made, **options)
        else:
            quantization.quantize_static(prepared, made, reader, use_external_data_format=apart)


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """The dataset's examples as the tensors that a session takes, one by one."""

    def __init__(self, model: OnnxModel, items: list[Any]) -> None:
        fed = ([named(model.inputs, item)] for item in items)
        self._left = (stacked(one) if model.batched else one[0] for one in fed)

    def get_next(self) -> Mapping[str, Any] | None:
        """The next example, None at the end."""
        return next(self._left, None)


def _compared(original: OnnxModel, made: OnnxModel, items: list[Any]) -> float | None:
    """The agreement on the dataset; None without one."""
    if not items:
        return None
    parts = [items[start : start + RUN_AT_ONCE] for start in range(0, len(items), RUN_AT_ONCE)]
    return agreement.agreement(
        [output for part in parts for output in original.predict(part)],
        [output for part in parts for output in made.predict(part)],
    )


def _trained(path: str, marked: bool) -> Made:
    if not marked:
        raise Refusal(
            65,
            f"{Path(path).name} is not quantized: quantization-aware training is done where the model is trained; "
            "export the trained model with its QuantizeLinear nodes",
        )
    say("the model is quantized already, by its training")
    return Made(path, {"method": "qat", "bytes": _bytes(Path(path)), "agreement": None})


def _marked(path: str) -> bool:
    """Whether the file has quantized nodes."""
    graph = onnx.load(path, load_external_data=False).graph
    return any(node.op_type in MARKS for node in graph.node)


def _bytes(path: Path) -> int:
    """The file's size, with the weights that lie beside it."""
    return sum(one.stat().st_size for one in (path, *_beside(path)))


def _beside(path: Path) -> set[Path]:
    """The files that hold weights of this model, because one file can't hold more than 2 GB."""
    tensors = onnx.load(str(path), load_external_data=False).graph.initializer
    names = {entry.value for one in tensors for entry in one.external_data if entry.key == "location"}
    return {path.parent / name for name in names}


def _kept(draft: Path, folder: Path) -> None:
    """Put the draft in its place, unless another start was quicker."""
    whole = folder.with_name(f"{folder.name}.{os.getpid()}")
    whole.mkdir()
    for one in draft.iterdir():
        one.rename(whole / one.name)
    try:
        whole.rename(folder)
    except OSError:
        for one in whole.iterdir():
            one.unlink()
        whole.rmdir()
