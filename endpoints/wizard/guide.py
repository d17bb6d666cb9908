"""What the pages tell about each choice: the specification's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from endpoints.spec import (
    BillingModel,
    DataType,
    Framework,
    LoadFormat,
    Method,
    Quantization,
    SourceKind,
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
            "Best for standard ML models and quick deployment",
            "Configuration: low complexity",
            "Time to deploy: 5–10 minutes, about a second for a small model that is here already",
        ),
    ),
    Choice(
        Method.CUSTOM,
        "Custom Docker container",
        (
            "Best for specialized models, own preprocessing, unique dependencies",
            "Configuration: medium to high complexity",
            "Time to deploy: 15–30 minutes",
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
            "For language models on CPUs and GPUs, quantized or not",
        ),
    ),
    Choice(
        Framework.VLLM,
        "vLLM",
        (
            "Models of the Hub's layout, in safetensors",
            "Libraries: vllm, with OpenAI's API, /health and /metrics",
            "For language models at high throughput on GPUs",
        ),
    ),
    Choice(
        f"{Framework.PYTORCH}@2.x",
        "PyTorch 2.x",
        ("Libraries: torch, transformers, safetensors", "For deep learning models and NLP"),
    ),
    Choice(
        f"{Framework.PYTORCH}@1.x",
        "PyTorch 1.x",
        ("Libraries: torch 1.13, transformers, safetensors", "For models that need the older version"),
    ),
    Choice(
        f"{Framework.TENSORFLOW}@2.x",
        "TensorFlow 2.x",
        ("Libraries: tensorflow with keras, numpy", "For computer vision and structured data"),
    ),
    Choice(
        Framework.ONNX,
        "ONNX",
        (
            "Version: latest",
            "Libraries: onnxruntime, onnx, tokenizers",
            "For cross-platform inference, also without model.py",
        ),
    ),
    Choice(
        Framework.PYTHON,
        "Custom Python",
        (
            "Version: as you define it",
            "Libraries: those of your requirements.txt",
            "For specialized frameworks, with your own model.py",
        ),
    ),
)
REQUIREMENTS: Final = (
    ("Base image", "Any Linux image, such as Ubuntu or Alpine"),
    ("Port", "Answers on the port named above, usually 8000"),
    ("Health check", "Answers GET on the health path with 200 once the model is ready"),
    ("Model loading", "Loads the model from MODEL_PATH, or brings its own, and keeps within its memory"),
    ("API", "A REST API for inference; an OpenAI-compatible one can be tried from the console"),
    ("User", "Runs as user 65532 without root rights, and writes only to /tmp"),
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
        ("Model ID and revision", "Token only for gated or private models", "For public models, quick deployment"),
    ),
    Choice(
        SourceKind.GIT,
        "Git repository",
        ("Address and branch, tag or commit", "Access token or SSH key", "For version-controlled models"),
    ),
    Choice(
        SourceKind.S3,
        "Amazon S3 or compatible",
        ("Bucket and folder", "Access key, or none for public buckets", "For large model files"),
    ),
    Choice(
        SourceKind.GCS,
        "Google Cloud Storage",
        ("Bucket and folder", "Service account, or none for public buckets", "For large model files"),
    ),
    Choice(
        SourceKind.NONE,
        "In the image",
        ("The image brings its model", "Nothing to fetch", "For custom containers"),
    ),
)
LOAD_FORMATS: Final = (
    Choice(LoadFormat.AUTO, "Auto", ("Takes the file as it is", "Memory: as the file", "Recommended")),
    Choice(LoadFormat.FP32, "FP32", ("Memory: highest", "Slower", "Best quality", "Research, maximum accuracy")),
    Choice(LoadFormat.FP16, "FP16", ("Memory: medium", "Faster", "Good quality", "Production, balanced")),
    Choice(LoadFormat.INT8, "INT8", ("Memory: lowest", "Fastest", "Reduced quality", "High throughput, low cost")),
)
DATA_TYPES: Final = (
    Choice(DataType.FLOAT16, "float16", ("2 bytes a value", "Half the memory of float32", "For modern GPUs")),
    Choice(DataType.BFLOAT16, "bfloat16", ("2 bytes a value", "Wider range than float16", "Numerically stabler")),
    Choice(DataType.FLOAT32, "float32", ("4 bytes a value", "Most compatible, twice the memory")),
    Choice(DataType.INT8, "int8", ("About 1.06 bytes a value", "Saves memory, slightly less exact")),
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

_SAMPLED: Final = "Temperature, top-k and top-p hold for calls that don't set them."
_OURS: Final = {
    "sampling_note": _SAMPLED,
    "format_note": "The type of the weights in memory. Auto follows the data type.",
    "type_note": "What the model computes in; a model.py of your own is handed it.",
}
WORDS: Final[Mapping[str, dict[str, str]]] = {
    Framework.LLAMA_CPP: {
        "sampling_note": _SAMPLED,
        "format_note": "llama.cpp loads the file as it is: the format you choose is checked against it.",
        "type_note": "With llama.cpp: of the key-value cache. The weights stay as the file has them.",
    },
    Framework.VLLM: {
        "sampling_note": _SAMPLED,
        "format_note": "With vLLM weights are kept in the type that it computes in.",
        "type_note": "What vLLM computes in, and its key-value cache too.",
    },
}


def words_of(engine: str) -> dict[str, str]:
    """What lengths, formats and types mean for this engine."""
    return WORDS.get(engine, _OURS)


PREREQUISITES: Final = (
    "The right to deploy in this project",
    "A model: its weights and configuration, or an image that brings them",
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
