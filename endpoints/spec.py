"""What a person asks for: the eight-step specification as frozen values, with the ranges they may take.

The twin of this in JSON is what a revision stores and what `POST /api/v1/endpoints` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from django.db.models import TextChoices

GIB = 1024**3


class Method(TextChoices):
    PREBUILT = "prebuilt", "Pre-built TIR container"


class Framework(TextChoices):
    LLAMA_CPP = "llama.cpp", "llama.cpp"


class SourceKind(TextChoices):
    REGISTRY = "registry", "TIR Model Registry"
    HUGGING_FACE = "huggingface", "Hugging Face Hub"


class LoadFormat(TextChoices):
    AUTO = "auto", "Auto"
    FP32 = "fp32", "FP32"
    FP16 = "fp16", "FP16"
    INT8 = "int8", "INT8"


class DataType(TextChoices):
    FLOAT32 = "float32", "float32"
    FLOAT16 = "float16", "float16"
    BFLOAT16 = "bfloat16", "bfloat16"
    INT8 = "int8", "int8"


class Quantization(TextChoices):
    NONE = "none", "None (as in the file)"
    DYNAMIC = "dynamic", "Dynamic"
    STATIC = "static", "Static"
    QAT = "qat", "Quantization-aware training"


class TokenizerType(TextChoices):
    AUTO = "auto", "From the model file"
    BPE = "bpe", "BPE"
    WORDPIECE = "wordpiece", "WordPiece"
    SENTENCEPIECE = "sentencepiece", "SentencePiece"


class Truncation(TextChoices):
    REFUSE = "refuse", "Stop at the length"
    SHIFT = "shift", "Go on, dropping the oldest tokens"


class Padding(TextChoices):
    NONE = "none", "No padding"
    LEFT = "left", "Left"
    RIGHT = "right", "Right"


class BillingModel(TextChoices):
    HOURLY = "hourly", "Per hour"
    PER_REQUEST = "per_request", "Per request"


class LogLevel(TextChoices):
    DEBUG = "DEBUG", "DEBUG"
    INFO = "INFO", "INFO"
    WARNING = "WARNING", "WARNING"
    ERROR = "ERROR", "ERROR"


# field -> (lowest, highest, default), from the specification's tables
LIMITS: dict[str, tuple[float, float, float]] = {
    "max_sequence_length": (128, 8192, 2048),
    "batch_size": (1, 64, 1),
    "temperature": (0.1, 2.0, 1.0),
    "top_k": (1, 100, 50),
    "top_p": (0.1, 1.0, 0.9),
    "min_instances": (0, 10, 1),
    "max_instances": (1, 100, 10),
    "target_concurrency": (1, 1000, 10),
    "scale_up_threshold": (50, 95, 80),
    "scale_down_delay": (60, 3600, 300),
    "warm_spare": (0, 10, 0),
    "max_workers": (1, 64, 4),
}


@dataclass(frozen=True)
class SourceSpec:
    """Where the model comes from. Registry: model, version. Hub: model_id, revision, file, token_secret."""

    kind: str = SourceKind.REGISTRY
    model: str = ""
    version: int = 0
    model_id: str = ""
    revision: str = "main"
    file: str = ""
    token_secret: str = ""  # the name of a stored secret, never its value


@dataclass(frozen=True)
class LlmSpec:
    load_format: str = LoadFormat.AUTO
    data_type: str = DataType.FLOAT16
    quantization: str = Quantization.NONE
    tokenizer_type: str = TokenizerType.AUTO
    truncation: str = Truncation.REFUSE
    padding: str = Padding.NONE
    max_sequence_length: int = 2048  # tokens a request may hold, prompt and answer together
    batch_size: int = 1  # sequences worked on together
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9


@dataclass(frozen=True)
class ScalingSpec:
    min_instances: int = 1
    max_instances: int = 10
    target_concurrency: int = 10  # requests in flight an instance
    scale_up_threshold: int = 80  # per cent of CPU or memory
    scale_down_delay: int = 300  # seconds
    warm_spare: int = 0  # instances kept above what the load needs
    billing_model: str = BillingModel.HOURLY

    @property
    def first(self) -> int:
        """How many a new endpoint starts with."""
        return max(1, self.min_instances, min(self.warm_spare, self.max_instances))


@dataclass(frozen=True)
class EnvironmentSpec:
    max_workers: int = 4
    log_level: str = LogLevel.INFO
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)  # variable -> name of a stored secret


@dataclass(frozen=True)
class Spec:
    name: str
    region: str
    instance_type: str
    source: SourceSpec
    method: str = Method.PREBUILT
    framework: str = Framework.LLAMA_CPP
    llm: LlmSpec = LlmSpec()
    scaling: ScalingSpec = ScalingSpec()
    environment: EnvironmentSpec = EnvironmentSpec()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives the same value back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Spec:
        """A stored revision's spec. Raises TypeError on a field that this version doesn't know."""
        parts = dict(stored)
        parts["source"] = _part(SourceSpec, parts["source"])
        parts["llm"] = _part(LlmSpec, parts.get("llm", {}))
        parts["scaling"] = _part(ScalingSpec, parts.get("scaling", {}))
        parts["environment"] = _part(EnvironmentSpec, parts.get("environment", {}))
        return cls(**parts)


P = TypeVar("P", SourceSpec, LlmSpec, ScalingSpec, EnvironmentSpec)


def _part(kind: type[P], stored: Mapping[str, Any]) -> P:
    return kind(**stored)
