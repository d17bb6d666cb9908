"""What a model folder holds, and the object that serves it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from serving.config import EngineConfig, Refusal
from serving.log import colourless
from serving.models import own, packages, tokenizer
from serving.models.base import Served

LAYOUT = "see docs/model-py.md for what a model folder holds"


@dataclass(frozen=True)
class Loaded:
    """The model, and what was done to its weights, for /metadata."""

    model: Served
    quantization: Mapping[str, Any] = field(default_factory=dict)


def check_model(path: str) -> None:
    """Refusal 66 if there is nothing to read."""
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").close()
    except OSError as error:
        raise Refusal(66, f"cannot read the model {path}: {error.strerror}") from error


def load(config: EngineConfig) -> Loaded:
    """Load what the folder holds, quantized if asked. Refusal 65 with the traceback's last line."""
    try:
        return _loaded(config)
    except Refusal:
        raise
    except BaseException as error:
        traceback.print_exc()
        hint = "; name it in the model's requirements.txt" if isinstance(error, ModuleNotFoundError) else ""
        raise Refusal(65, f"the model cannot be loaded: {last_line(error)}{hint}") from error


def _loaded(config: EngineConfig) -> Loaded:
    folder = config.model
    if os.path.isdir(folder):
        tokenizer.check(folder, config.options.tokenizer_type)
    if (Path(folder) / own.FILE).is_file():
        return _own(config)
    if config.engine == "onnx":
        return _onnx(config)
    if config.engine == "pytorch":
        return _causal(config)
    raise Refusal(65, f"there is no {own.FILE} in {folder}; {LAYOUT}")


def _own(config: EngineConfig) -> Loaded:
    packages.install(config)
    if config.options.quantization == "none":
        return Loaded(own.OwnModel(own.load(config, config.model), config.model))
    whole = import_module("serving.quantize.whole")  # most models are served as they are
    folder, report = whole.before(config)
    model = own.load(config, folder)
    return Loaded(own.OwnModel(model, folder), {**report, **whole.after(config, model)})


def _onnx(config: EngineConfig) -> Loaded:
    onnx = _engine("onnx", "serving.models.onnx")
    file = onnx.find(config.model)
    if file is None:
        raise Refusal(65, f"there is neither a {own.FILE} nor an .onnx file in {config.model}; {LAYOUT}")
    if config.options.method == "none":
        return Loaded(onnx.load(config, file))
    made = _engine("onnx", "serving.quantize.onnx").quantized(config, file)
    return Loaded(onnx.load(config, made.path), made.report)


def _causal(config: EngineConfig) -> Loaded:
    causal = _engine("pytorch", "serving.models.causal")
    if not causal.fits(config.model):
        raise Refusal(65, f"there is neither a {own.FILE} nor a transformers model in {config.model}; {LAYOUT}")
    model = causal.load(config, config.model)
    if config.options.method == "none":
        return Loaded(model)
    return Loaded(model, import_module("serving.quantize.causal").quantized(config, model))


def _engine(name: str, module: str) -> Any:
    """Our module over an engine's packages, imported only where they are wanted. Refusal 72 without them."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Refusal(72, f"the {name} engine is not installed here: {error}") from error


def last_line(error: BaseException) -> str:
    """The end of its traceback, as one line."""
    return " ".join(colourless(traceback.format_exception_only(error)[-1]).split())
