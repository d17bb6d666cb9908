"""Which LLM settings each engine honours with which model: refused with the reason, or not asked for at all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from accounts.models import Project
from endpoints.memory import Verdict
from endpoints.models import InstanceType
from endpoints.safetensors import Weights
from endpoints.sources import Found, SourceFile
from endpoints.sources.layout import MODEL_PY, ONNX, TRANSFORMERS, Layout
from endpoints.spec import GIB, LlmSpec, SourceSpec
from endpoints.wizard.llm_form import LlmForm
from endpoints.wizard.looks import Look
from endpoints.wizard.situation import Catalogue, Situation

pytestmark = pytest.mark.django_db
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 4096,
}
FILES = (SourceFile("model.py", 100), SourceFile("calibration.jsonl", 100))
CPU = InstanceType(slug="c6i.4xlarge", vcpus=16, memory_bytes=32 * GIB)
T4 = InstanceType(
    slug="g4dn.xlarge", vcpus=4, memory_bytes=16 * GIB, gpu="T4", gpu_count=1, gpu_memory_bytes=16 * GIB
)
A100 = InstanceType(
    slug="p4d.xlarge", vcpus=8, memory_bytes=96 * GIB, gpu="A100", gpu_count=1, gpu_memory_bytes=40 * GIB
)


def situation(
    engine: str,
    kind: str = TRANSFORMERS,
    *,
    methods: tuple[str, ...] = (),
    config: dict[str, Any] | None = None,
    machine: InstanceType | None = None,
) -> Situation:
    """A model of this kind was looked at for this engine."""
    layout = Layout(kind, engine, (), methods, "")
    weights = Weights(16 * GIB, 8 * 10**9, {"BF16": 16 * GIB}, config or LLAMA) if kind == TRANSFORMERS else None
    found = Found("c0ffee", FILES, (), "", None, weights=weights, layout=layout)
    source = SourceSpec(kind="git", url="https://git.example.com/m.git")
    look = Look({"kind": "git"}, found)
    return Situation(Catalogue(Project(slug="p")), engine=engine, source=source, look=look, machine=machine)


def judged(at: Situation, **given: Any) -> dict[str, str]:
    form = LlmForm(asdict(LlmSpec()) | {"data_type": "float32"} | given, situation=at)
    return {name: str(problems[0]) for name, problems in form.errors.items()}


def test_what_everybody_gets_is_right_for_every_engine() -> None:
    for engine in ("vllm", "pytorch", "tensorflow", "onnx", "python", "custom"):
        assert judged(situation(engine)) == {}, engine


@pytest.mark.parametrize(
    ("engine", "kind", "given", "field", "said"),
    [
        ("vllm", TRANSFORMERS, {"data_type": "int8"}, "data_type", "vLLM computes in"),
        ("vllm", TRANSFORMERS, {"load_format": "int8"}, "load_format", "vLLM computes in"),
        ("vllm", TRANSFORMERS, {"load_format": "fp16"}, "load_format", "in the type that it computes in"),
        ("vllm", TRANSFORMERS, {"quantization": "static"}, "quantization", "has no quantization_config"),
        ("vllm", TRANSFORMERS, {"tokenizer_type": "bpe"}, "tokenizer_type", "takes the tokenizer"),
        ("vllm", TRANSFORMERS, {"padding": "left"}, "padding", "never pads"),
        ("vllm", TRANSFORMERS, {"truncation": "shift"}, "truncation", "Only llama.cpp"),
        ("vllm", TRANSFORMERS, {"max_sequence_length": 8192}, "max_sequence_length", "trained for 4,096"),
        ("pytorch", TRANSFORMERS, {"quantization": "static"}, "quantization", "can't trace"),
        ("pytorch", TRANSFORMERS, {"data_type": "int8"}, "data_type", "choose a quantization"),
        ("pytorch", MODEL_PY, {"quantization": "static"}, "calibration_dataset", "needs examples"),
        ("onnx", ONNX, {"quantization": "static"}, "calibration_dataset", "needs examples"),
        ("onnx", ONNX, {"load_format": "fp16"}, "load_format", "the types that its file has"),
        ("tensorflow", MODEL_PY, {"quantization": "dynamic"}, "quantization", "Only PyTorch and ONNX"),
        ("python", MODEL_PY, {"load_format": "int8"}, "load_format", "Only PyTorch and ONNX"),
    ],
)
def test_what_an_engine_cant_do_is_refused_with_the_reason(
    engine: str, kind: str, given: dict[str, Any], field: str, said: str
) -> None:
    assert said in judged(situation(engine, kind), **given)[field]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("calibration.jsonl", ""),
        ("other.jsonl", "have no “other.jsonl”"),
        ("model.py", "an .npz or a .jsonl file"),
    ],
)
def test_a_calibration_dataset_is_one_of_the_models_files(given: str, problem: str) -> None:
    found = judged(situation("onnx", ONNX), quantization="static", calibration_dataset=given)
    assert problem in found.get("calibration_dataset", "")
    assert bool(found) is bool(problem)


@pytest.mark.parametrize(("machine", "works"), [(T4, False), (A100, True)])
def test_types_and_quantizations_that_a_card_cant_are_refused(machine: InstanceType, works: bool) -> None:
    at = situation("vllm", config=LLAMA | {"max_position_embeddings": 8192}, machine=machine)
    assert ("data_type" not in judged(at, data_type="bfloat16")) is works
    assert ("quantization" not in judged(at, quantization="dynamic", data_type="float16")) is works


def test_dynamic_quantization_of_pytorch_wants_a_machine_without_a_gpu() -> None:
    assert (
        "CPUs only" in judged(situation("pytorch", MODEL_PY, machine=T4), quantization="dynamic")["quantization"]
    )
    assert judged(situation("pytorch", MODEL_PY, machine=CPU), quantization="dynamic") == {}


@pytest.mark.parametrize(
    ("engine", "kind", "methods", "idle", "asked"),
    [
        ("onnx", ONNX, (), "max_sequence_length", "batch_size"),
        ("onnx", ONNX, (), "data_type", "quantization"),
        ("python", MODEL_PY, ("predict",), "temperature", "max_sequence_length"),
        ("python", MODEL_PY, ("chat",), "accuracy_threshold", "temperature"),
        ("custom", MODEL_PY, (), "batch_size", ""),
    ],
)
def test_what_says_nothing_there_is_not_asked_for(
    engine: str, kind: str, methods: tuple[str, ...], idle: str, asked: str
) -> None:
    form = LlmForm(asdict(LlmSpec()), situation=situation(engine, kind, methods=methods))
    form.full_clean()
    assert idle in form.unused()
    assert asked not in form.unused()


def test_a_wrong_answer_to_what_says_nothing_there_keeps_nobody_from_going_on() -> None:
    assert judged(situation("onnx", ONNX), temperature="hot", max_sequence_length="") == {}
    assert judged(situation("custom"), batch_size="-1") == {}


@pytest.mark.parametrize(("machine", "verdict"), [(T4, Verdict.DOES_NOT_FIT), (A100, Verdict.FITS)])
def test_safetensors_tell_the_memory_before_anything_is_fetched(machine: InstanceType, verdict: Verdict) -> None:
    need = situation("vllm").estimate(machine, length=2048, concurrency=1, data_type="float16")
    assert need is not None
    assert need.parts is not None
    assert need.verdict == verdict
    assert need.parts.weights >= 16 * GIB
    assert need.parts.kv == 2048 * 128 * 1024


def test_a_model_that_says_nothing_of_its_size_has_no_estimate() -> None:
    assert situation("onnx", ONNX).estimate(CPU, length=128, concurrency=1, data_type="float32") is None
