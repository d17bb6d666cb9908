"""Which LLM settings each engine honours, and why it doesn't honour the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from endpoints.sources.layout import MODEL_PY, ONNX, TRANSFORMERS, Layout
from endpoints.spec import (
    MODEL_SERVERS,
    DataType,
    Framework,
    LlmSpec,
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

NO_STATIC: Final = "PyTorch can't trace a language model for static quantization. Choose dynamic quantization."
OF_THE_FILE: Final = "A plain ONNX model keeps the types that its file has."
NO_TOKENS: Final = "A plain ONNX model takes tensors, not tokens."
NO_CHAT: Final = "The model's class has neither chat nor stream, so nobody asks it for text."

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
        "tokenizer_type": _all_but(TokenizerType.values, TokenizerType.AUTO, VLLM_TOKENIZER),
        "padding": _all_but(Padding.values, Padding.NONE, VLLM_PADDING),
        "truncation": {Truncation.SHIFT: NO_SHIFT},
    },
}
_OURS: Final[Mapping[str, Reasons]] = {
    "data_type": {DataType.INT8: SERVER_INT8},
    "truncation": {Truncation.SHIFT: NO_SHIFT},
}


_PLAIN_ONNX: Final[Mapping[str, Reasons]] = {
    "load_format": {LoadFormat.FP32: OF_THE_FILE, LoadFormat.FP16: OF_THE_FILE},
}
_OF_CHAT: Final = ("temperature", "top_k", "top_p", "truncation")
_OF_TOKENS: Final = ("max_sequence_length", "data_type", "tokenizer_type", "padding", *_OF_CHAT)


def off(engine: str, layout: Layout | None) -> Mapping[str, Reasons]:
    """Field → value → why this engine can't do that with a model of this kind."""
    if engine not in MODEL_SERVERS:
        return _OFF.get(engine, {})
    if engine not in QUANTIZING:
        quantized = _all_but(Quantization.values, Quantization.NONE, NO_QUANTIZING)
        return {**_OURS, "quantization": quantized, "load_format": {LoadFormat.INT8: NO_QUANTIZING}}
    if layout and layout.kind == ONNX:
        return {**_OURS, **_PLAIN_ONNX}
    if layout and layout.kind == TRANSFORMERS:
        return {**_OURS, "quantization": {Quantization.STATIC: NO_STATIC}}
    return _OURS


def unused(engine: str, quantization: str, layout: Layout | None, names: list[str]) -> dict[str, str]:
    """Field → why it says nothing there at all."""
    if engine == Framework.CUSTOM:
        return dict.fromkeys(names, NOT_INSIDE)
    found: dict[str, str] = {}
    if engine not in QUANTIZING or quantization in ("", Quantization.NONE):
        found |= dict.fromkeys(("calibration_dataset", "accuracy_threshold"), NOT_MEASURED)
    if layout and layout.kind == ONNX:
        return found | dict.fromkeys(_OF_TOKENS, NO_TOKENS)
    if layout and layout.kind == MODEL_PY and not {"chat", "stream"} & set(layout.methods):
        return found | dict.fromkeys(_OF_CHAT, NO_CHAT)
    return found


def usual_type(engine: str) -> str:
    """The data type that nobody has to choose: what computes well on the machines it most often runs on."""
    return DataType.FLOAT32 if engine in MODEL_SERVERS else LlmSpec.data_type
