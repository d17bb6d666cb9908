"""What the pages tell about each choice: the specification's tables and what llama.cpp makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from endpoints.spec import (
    BillingModel,
    DataType,
    Framework,
    LoadFormat,
    Method,
    Padding,
    Quantization,
    SourceKind,
    TokenizerType,
)

GIB: Final = 1 << 30


@dataclass(frozen=True)
class Choice:
    """One card: its value, title and short facts; `reason` where it can't be chosen."""

    value: str
    title: str
    facts: tuple[str, ...] = ()
    reason: str = ""
    checked: bool = False


def with_checked(choices: tuple[Choice, ...], chosen: object) -> list[Choice]:
    return [replace(choice, checked=choice.value == str(chosen)) for choice in choices]


METHODS: Final = (
    Choice(
        Method.PREBUILT,
        "Pre-built TIR container",
        (
            "For standard ML models and quick deployment",
            "Configuration: low complexity",
            "Time to deploy: 5–10 minutes, about a second for a small model that is here already",
        ),
    ),
)
FRAMEWORKS: Final = (
    Choice(
        Framework.LLAMA_CPP,
        "llama.cpp",
        (
            "Models in GGUF format, versions 2 and 3",
            "Libraries: llama.cpp server with OpenAI's API, /health and /metrics",
            "For language models on CPUs, quantized or not",
        ),
    ),
)
SOURCES: Final = (
    Choice(
        SourceKind.REGISTRY,
        "TIR Model Registry",
        ("Name and version", "Your TIR login is enough", "For models you manage here"),
    ),
    Choice(
        SourceKind.HUGGING_FACE,
        "Hugging Face Hub",
        ("Model ID and revision", "Token only for gated or private models", "For public models"),
    ),
)
LOAD_FORMATS: Final = (
    Choice(LoadFormat.AUTO, "Auto", ("Takes the file as it is", "Memory: as the file", "Recommended")),
    Choice(LoadFormat.FP32, "FP32", ("Memory: highest", "Slower", "Best quality", "Research, maximum accuracy")),
    Choice(LoadFormat.FP16, "FP16", ("Memory: medium", "Faster", "Good quality", "Production, balanced")),
    Choice(LoadFormat.INT8, "INT8", ("Memory: lowest", "Fastest", "Reduced quality", "High throughput, low cost")),
)
DATA_TYPES: Final = (
    Choice(DataType.FLOAT16, "float16", ("Cache: 2 bytes a value", "Half the memory of float32")),
    Choice(DataType.BFLOAT16, "bfloat16", ("Cache: 2 bytes a value", "Wider range than float16")),
    Choice(DataType.FLOAT32, "float32", ("Cache: 4 bytes a value", "Most compatible, twice the memory")),
    Choice(DataType.INT8, "int8", ("Cache: about 1.06 bytes a value", "Saves memory, slightly less exact")),
)
QUANTIZATIONS: Final = (
    Choice(Quantization.NONE, "None", ("Weights as they are in the file",)),
    Choice(Quantization.DYNAMIC, "Dynamic", ("Memory: 50–75 % less", "1.5–2× faster", "Quality: minimal impact")),
    Choice(Quantization.STATIC, "Static", ("Memory: 75 % less", "2–3× faster", "Quality: small impact")),
    Choice(
        Quantization.QAT, "Quantization-aware", ("Memory: 75 % less", "2–3× faster", "Needs a model trained so")
    ),
)
BILLING: Final = (
    Choice(BillingModel.HOURLY, "Per hour", ("The hourly price of each running instance", "The same at any load")),
    Choice(
        BillingModel.PER_REQUEST,
        "Per request",
        ("₹0.001 a request", "plus the hourly price while instances are active"),
    ),
)

NO_QUANTIZING: Final = (
    "A GGUF file is quantized when it is made, not when it is loaded. Choose a file in the format you want."
)
NO_TOKENIZER: Final = "llama.cpp takes the tokenizer from the model file; it can't be replaced by another."
NO_PADDING: Final = "llama.cpp batches sequences of different lengths as they are and never pads them."

OFF_TOKENIZERS: Final = {value: NO_TOKENIZER for value in TokenizerType.values if value != TokenizerType.AUTO}
OFF_PADDINGS: Final = {value: NO_PADDING for value in Padding.values if value != Padding.NONE}

PREREQUISITES: Final = (
    "The right to deploy in this project",
    "A model: weights and configuration, in GGUF format",
    "An idea of the memory and processors it needs",
    "A deployment method: the pre-built container takes the least work",
    "An idea of the traffic to expect, for the scaling settings",
)


@dataclass(frozen=True)
class ColdStart:
    machine: str
    model: str
    cold: str
    warm: str
    mine: bool = False


def cold_starts(gpu: bool, model_bytes: int | None) -> tuple[ColdStart, ...]:
    """The specification's times, with the row of this machine and model marked."""
    large = model_bytes is not None and model_bytes > 5 * GIB
    return (
        ColdStart("CPU (small model)", "< 1 GB", "30–60 s", "1–3 s", not gpu),
        ColdStart("GPU (medium model)", "1–5 GB", "60–120 s", "2–5 s", gpu and not large),
        ColdStart("GPU (large model)", "> 5 GB", "120–300 s", "5–15 s", gpu and large),
    )
