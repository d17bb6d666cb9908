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
    CUSTOM = "custom", "Custom Docker container"


class Framework(TextChoices):
    """What serves the model. `CUSTOM` stands for the user's own image, of whose inside nothing is known."""

    LLAMA_CPP = "llama.cpp", "llama.cpp"
    VLLM = "vllm", "vLLM"
    PYTORCH = "pytorch", "PyTorch"
    TENSORFLOW = "tensorflow", "TensorFlow"
    ONNX = "onnx", "ONNX"
    PYTHON = "python", "Custom Python"
    CUSTOM = "custom", "Custom image"


# framework -> versions that can be asked for, the default first; the others have one only
VERSIONS: dict[str, tuple[str, ...]] = {
    Framework.PYTORCH: ("2.x", "1.x"),
    Framework.TENSORFLOW: ("2.x",),
}
# Those whose model server is ours: they load a folder, and answer at paths of their own, such as /predict.
MODEL_SERVERS = frozenset({Framework.PYTORCH, Framework.TENSORFLOW, Framework.ONNX, Framework.PYTHON})


class SourceKind(TextChoices):
    REGISTRY = "registry", "TIR Model Registry"
    HUGGING_FACE = "huggingface", "Hugging Face Hub"
    GIT = "git", "Git repository"
    S3 = "s3", "Amazon S3 or compatible"
    GCS = "gcs", "Google Cloud Storage"
    NONE = "none", "In the image"


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
    "accuracy_threshold": (0.5, 1.0, 0.95),
    "port": (1, 65_535, 8000),
    "startup_seconds": (10, 3600, 600),
    "memory_gib": (0, 10_000, 0),
}


@dataclass(frozen=True)
class SourceSpec:
    """Where the model comes from.

    registry: model, version. huggingface: model_id, revision, path, file. git: url, revision, path, file,
    username, host_key. s3: bucket, path, file, url (of the service, "" for Amazon's), region, access_key.
    gcs: bucket, path, file, url. none: nothing; the image brings its model.
    """

    kind: str = SourceKind.REGISTRY
    model: str = ""
    version: int = 0
    model_id: str = ""
    revision: str = "main"  # branch, tag or commit
    file: str = ""  # below `path`
    token_secret: str = ""  # the name of the stored secret that holds the credential, never its value
    url: str = ""
    bucket: str = ""
    path: str = ""  # the model's folder inside the repository or bucket; "": its root
    region: str = ""
    access_key: str = ""  # the S3 key's id; its secret half is the credential
    username: str = ""  # of a Git server over https
    host_key: str = ""  # of a Git server over ssh, as lines of a known_hosts file

    @property
    def named(self) -> str:
        """The model as people call it, short enough for a line; "" where the image brings it."""
        inside = f"/{self.path}" if self.path else ""
        return {
            SourceKind.REGISTRY: f"{self.model} v{self.version}",
            SourceKind.HUGGING_FACE: f"{self.model_id}{inside}",
            SourceKind.GIT: f"{self.url}{inside}",
            SourceKind.S3: f"s3://{self.bucket}{inside}",
            SourceKind.GCS: f"gs://{self.bucket}{inside}",
        }.get(SourceKind(self.kind), "")


@dataclass(frozen=True)
class ContainerSpec:
    """The user's own image. `command`: words as in a shell, "" for the image's own."""

    image: str = ""
    port: int = 8000
    health_path: str = "/health"
    command: str = ""
    registry_username: str = ""
    registry_secret: str = ""  # the name of a stored secret
    startup_seconds: int = 600  # until it must be healthy


@dataclass(frozen=True)
class LlmSpec:
    load_format: str = LoadFormat.AUTO
    data_type: str = DataType.FLOAT16
    quantization: str = Quantization.NONE
    calibration_dataset: str = ""  # a path inside the model's files
    accuracy_threshold: float = 0.95  # what a quantized model must keep
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
    framework_version: str = ""  # one of VERSIONS; "": the newest
    memory_gib: float = 0.0  # an instance's need by the person's own figure; 0: the estimate decides
    container: ContainerSpec = ContainerSpec()
    llm: LlmSpec = LlmSpec()
    scaling: ScalingSpec = ScalingSpec()
    environment: EnvironmentSpec = EnvironmentSpec()

    @property
    def custom(self) -> bool:
        return self.method == Method.CUSTOM

    @property
    def engine(self) -> str:
        """What serves it: a framework, or the user's own image."""
        return str(Framework.CUSTOM if self.custom else self.framework)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives the same value back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Spec:
        """A stored revision's spec. Raises TypeError on a field that this version doesn't know."""
        parts = dict(stored)
        parts["source"] = _part(SourceSpec, parts["source"])
        parts["container"] = _part(ContainerSpec, parts.get("container", {}))
        parts["llm"] = _part(LlmSpec, parts.get("llm", {}))
        parts["scaling"] = _part(ScalingSpec, parts.get("scaling", {}))
        parts["environment"] = _part(EnvironmentSpec, parts.get("environment", {}))
        return cls(**parts)


P = TypeVar("P", SourceSpec, ContainerSpec, LlmSpec, ScalingSpec, EnvironmentSpec)


def _part(kind: type[P], stored: Mapping[str, Any]) -> P:
    return kind(**stored)
