"""Bodies of `POST /endpoints` to begin with: one for each method, framework and source."""

from __future__ import annotations

from typing import Any, Final

COMMON: Final = {"region": "local", "instance_type": "c6i.large"}


def _body(name: str, **given: Any) -> dict[str, Any]:
    return {"name": name} | COMMON | given


EXAMPLES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "registry": (
        "A model of the registry, by llama.cpp",
        _body("chat", source={"kind": "registry", "model": "smollm2-135m-instruct", "version": 1}),
    ),
    "huggingface": (
        "A gated model of the Hugging Face Hub, by vLLM",
        _body(
            "assistant",
            framework="vllm",
            region="cluster",
            instance_type="p4d.xlarge",
            source={
                "kind": "huggingface",
                "model_id": "mistralai/Mistral-7B-Instruct-v0.3",
                "revision": "main",
                "token_secret": "hub-token",
            },
            llm={"data_type": "bfloat16", "max_sequence_length": 8192, "batch_size": 16},
        ),
    ),
    "git": (
        "A folder of a Git repository with its own model.py, by PyTorch",
        _body(
            "classifier",
            framework="pytorch",
            framework_version="2.x",
            source={
                "kind": "git",
                "url": "https://git.example.com/team/models.git",
                "revision": "v1.4",
                "path": "classifier",
                "token_secret": "git-token",
            },
        ),
    ),
    "s3": (
        "An ONNX model of a bucket, quantized with a calibration dataset",
        _body(
            "ranker",
            framework="onnx",
            source={
                "kind": "s3",
                "bucket": "models",
                "path": "ranker/3",
                "region": "ap-south-1",
                "access_key": "AKIAEXAMPLE",
                "token_secret": "s3-key",
            },
            llm={"quantization": "static", "calibration_dataset": "calibration.npz", "accuracy_threshold": 0.98},
        ),
    ),
    "gcs": (
        "A public bucket of Google Cloud Storage, by a model.py with packages of its own",
        _body(
            "forecast", framework="python", source={"kind": "gcs", "bucket": "public-models", "path": "forecast"}
        ),
    ),
    "container": (
        "An image of your own that brings its model",
        _body(
            "own",
            method="custom",
            region="cluster",
            container={
                "image": "registry.example.com/team/model:1.4",
                "port": 8000,
                "health_path": "/health",
                "registry_username": "deploy",
                "registry_secret": "registry-password",
            },
            source={"kind": "none"},
        ),
    ),
}


def document() -> dict[str, Any]:
    """As OpenAPI names them."""
    return {name: {"summary": summary, "value": body} for name, (summary, body) in EXAMPLES.items()}
