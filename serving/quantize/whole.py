"""Quantization of a folder with a model.py: its ONNX file before it is loaded, its PyTorch module after."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from serving.config import EngineConfig, Refusal
from serving.log import say
from serving.quantize import agreement, calibration, outcome

Report = Mapping[str, Any]


def before(config: EngineConfig) -> tuple[str, Report]:
    """The folder to load from: with an ONNX engine a twin of the model's, with the quantized file in its place."""
    if config.engine not in {"onnx", "pytorch"}:
        raise Refusal(65, f"the {config.engine} engine quantizes nothing itself: ask for no quantization")
    if config.engine == "pytorch":
        return config.model, {}
    file = import_module("serving.models.onnx").find(config.model)
    if file is None:
        raise Refusal(65, "there is no .onnx file in the folder to quantize")
    made = import_module("serving.quantize.onnx").quantized(config, file)
    if made.path == file:
        return config.model, made.report
    folder = _twin(config.model, Path(file).relative_to(config.model), made.path)
    os.environ["MODEL_PATH"] = folder
    return folder, made.report


def after(config: EngineConfig, model: Any) -> Report:
    """Put the quantized module in the model's `module`, if it keeps the accuracy asked for; what was done."""
    if config.engine != "pytorch":
        return {}
    module, method = getattr(model, "module", None), config.options.quantization
    if module is None:
        raise Refusal(65, "quantization needs the torch module in the model's attribute `module` after load")
    tools = import_module("serving.quantize.torch")
    if method == "qat":
        if not tools.is_quantized(module):
            raise Refusal(65, "the module is not quantized: its training has to do that")
        return {"method": method, "agreement": None}
    dataset = calibration.file(config)
    if dataset is None and method == "static":
        raise Refusal(65, "static quantization needs a calibration dataset: name one among the model's files")
    items = calibration.items(dataset) if dataset else []
    before_bytes = tools.size(module)

    def quantize() -> None:
        if method == "dynamic":
            model.module = tools.dynamic(module)
        else:
            model.module = tools.static(module, lambda prepared: _observed(config, model, prepared, items))

    answers = (lambda: _answers(config, model, items)) if items else None
    found = outcome.measured(config, [tools.VERSION], answers, quantize)
    return report(config, found, before_bytes, tools.size(model.module), len(items))


def report(config: EngineConfig, found: float | None, original: int, made: int, examples: int) -> Report:
    """What was achieved, said and shown. Refusal 65 if it misses the threshold."""
    method, threshold = config.options.method, config.options.accuracy_threshold
    if found is None:
        say(f"{method} quantization: {original:,} to {made:,} bytes; not checked: there is no calibration dataset")
    else:
        agreement.check(found, threshold, f"{method} quantization")
        said = f"agreement {found:.4f}, at least {threshold:g} asked for"
        say(f"{method} quantization: {original:,} to {made:,} bytes; {said}")
    return {
        "method": method,
        "data_type": "int8",
        "original_bytes": original,
        "bytes": made,
        "agreement": found,
        "examples": examples,
        "threshold": threshold,
    }


def _observed(config: EngineConfig, model: Any, prepared: Any, items: list[Any]) -> None:
    model.module = prepared
    _answers(config, model, items)


def _answers(config: EngineConfig, model: Any, items: list[Any]) -> list[Any]:
    """What the model's own predict says, in batches as it will be asked."""
    parts = [items[start : start + config.parallel] for start in range(0, len(items), config.parallel)]
    return [output for part in parts for output in model.predict(part)]


def _twin(folder: str, inside: Path, made: str) -> str:
    """A folder of links to the model's files, with the one that was made in the place of the one `inside` it."""
    kept = Path(made).parent
    twin = kept.with_name(f"folder-{calibration.digest(words=(folder, made))}")
    if twin.is_dir():
        return str(twin)
    draft = Path(tempfile.mkdtemp(dir=kept.parent))
    place, here = draft, Path(folder)
    for part in inside.parts:
        for one in here.iterdir():
            if one.name != part:
                (place / one.name).symlink_to(one.resolve())
        here /= part
        if part != inside.name:
            place /= part
            place.mkdir()
    for one in kept.glob("model.onnx*"):  # copies: onnx takes no links for weights that lie apart
        shutil.copyfile(one, place / (inside.name if one.name == "model.onnx" else one.name))
    try:
        draft.rename(twin)
    except OSError:  # another start was quicker
        shutil.rmtree(draft)
    return str(twin)
