"""Which LLM settings each engine honours, and why it doesn't honour the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from endpoints.spec import (
    MODEL_SERVERS,
    DataType,
    Framework,
    LoadFormat,
    Padding,
    Quantization,
    TokenizerType,
    Truncation,
)

Reasons = Mapping[str, str]  # value → why it can't be
QUANTIZING: Final = frozenset(
    {Framework.PYTORCH, Framework.ONNX}
)  # engines that quantize, and measure what is kept

GGUF_QUANTIZING: Final = (
    "A GGUF file is quantized when it is made, not when it is loaded. Choose a file in the format you want."
)
GGUF_TOKENIZER: Final = "llama.cpp takes the tokenizer from the model file; it can't be replaced by another."
GGUF_PADDING: Final = "llama.cpp batches sequences of different lengths as they are and never pads them."
VLLM_INT8: Final = "vLLM computes in float16, bfloat16 or float32; for weights of 8 bits choose a quantization."
VLLM_TOKENIZER: Final = "vLLM takes the tokenizer that the model's files name."
VLLM_PADDING: Final = "vLLM batches sequences of different lengths as they are and never pads them."
NO_SHIFT: Final = "Only llama.cpp can go on by dropping the oldest tokens."
NO_QUANTIZING: Final = "Only PyTorch and ONNX models are quantized when they are loaded."
SERVER_INT8: Final = "To compute in int8 a model is quantized: choose a quantization instead."

NOT_INSIDE: Final = "A custom container sets this by itself: the console can't know what it runs."
NOT_MEASURED: Final = "Only where PyTorch or ONNX quantizes the model."


def _all_but(values: list[str], kept: str, why: str) -> Reasons:
    return {value: why for value in values if value != kept}


_OFF: Final[Mapping[str, Mapping[str, Reasons]]] = {
    Framework.LLAMA_CPP: {
        "quantization": _all_but(Quantization.values, Quantization.NONE, GGUF_QUANTIZING),
        "tokenizer_type": _all_but(TokenizerType.values, TokenizerType.AUTO, GGUF_TOKENIZER),
        "padding": _all_but(Padding.values, Padding.NONE, GGUF_PADDING),
    },
    Framework.VLLM: {
        "load_format": {LoadFormat.INT8: VLLM_INT8},
        "data_type": {DataType.INT8: VLLM_INT8},
        "tokenizer_type": {TokenizerType.BPE: VLLM_TOKENIZER, TokenizerType.WORDPIECE: VLLM_TOKENIZER},
        "padding": _all_but(Padding.values, Padding.NONE, VLLM_PADDING),
        "truncation": {Truncation.SHIFT: NO_SHIFT},
    },
}
_OURS: Final[Mapping[str, Reasons]] = {
    "data_type": {DataType.INT8: SERVER_INT8},
    "truncation": {Truncation.SHIFT: NO_SHIFT},
}


def off(engine: str) -> Mapping[str, Reasons]:
    """Field → value → why this engine can't do that, whatever the model."""
    if engine not in MODEL_SERVERS:
        return _OFF.get(engine, {})
    if engine in QUANTIZING:
        return _OURS
    quantized = _all_but(Quantization.values, Quantization.NONE, NO_QUANTIZING)
    return {**_OURS, "quantization": quantized, "load_format": {LoadFormat.INT8: NO_QUANTIZING}}


def unused(engine: str, quantization: str, names: list[str]) -> Reasons:
    """Field → why it says nothing there at all."""
    if engine == Framework.CUSTOM:
        return dict.fromkeys(names, NOT_INSIDE)
    if engine in QUANTIZING and quantization != Quantization.NONE:
        return {}
    return dict.fromkeys(("calibration_dataset", "accuracy_threshold"), NOT_MEASURED)
