"""From a stored revision to the workload a runtime is asked to run."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from django.conf import settings

from endpoints.file_pass import pass_for
from endpoints.memory import KV_TYPE_FOR
from endpoints.models import Endpoint, Revision, Secret
from endpoints.models.catalogue import Region, RuntimeKind
from endpoints.origin import version_of
from endpoints.planner.limits import loading_deadline
from endpoints.runtimes.base import Command, Image, Rejected, Workload
from endpoints.sources import SourceProblem
from endpoints.spec import Framework, LlmSpec, SourceKind, SourceSpec, Spec, Truncation

MODEL_PATH = "MODEL_PATH"
IN_IMAGE = "(in the image)"  # a revision's model path where nothing of ours brings the model


def workload_of(
    endpoint: Endpoint, revision: Revision, replicas: int, retire: tuple[str, ...], *, fetches: bool
) -> Workload:
    """Everything an instance of this revision needs; `fetches` as its runtime says.

    Raises Rejected when a secret that it names is gone.
    """
    spec, kind = revision.wish, revision.instance_type
    ready = replicas and revision.model_path
    return Workload(
        owner=endpoint.owner,
        revision=revision.number,
        replicas=replicas,
        command=command_of(endpoint, revision, fetches=fetches) if ready else None,
        retire=retire,
        cpu_millis=kind.vcpus * 1000,
        memory_bytes=kind.memory_bytes,
        gpus=kind.gpu_count,
        machine=kind.slug,
        env=_environment(endpoint.region, revision),
        secrets=_revealed(endpoint, spec.environment.secrets) if replicas else {},
    )


def command_of(endpoint: Endpoint, revision: Revision, *, fetches: bool) -> Command:
    """What its instances run; also before the model is there, for what has to be prepared."""
    spec, resolved = revision.wish, revision.resolved
    brings = spec.source.kind == SourceKind.NONE
    source = spec.source
    return Command(
        engine=spec.engine,
        version=spec.framework_version,
        model="" if fetches or brings else revision.model_path,
        alias=endpoint.name,
        image=_image(endpoint, spec),
        requirements=(resolved.get("layout") or {}).get("requirements", ""),
        options=_options(spec.llm) | _pickled(spec, resolved),
        fetch=_pinned(endpoint, source, resolved) if fetches and not brings else None,
        credential=_credential(endpoint, revision) if fetches else "",
        startup_seconds=_startup(spec, resolved),
        context_length=spec.llm.max_sequence_length,
        parallel=spec.llm.batch_size,
        kv_cache_type=KV_TYPE_FOR[spec.llm.data_type],
        context_shift=spec.llm.truncation == Truncation.SHIFT,
        workers=spec.environment.max_workers,
        log_level=spec.environment.log_level,
    )


def _startup(spec: Spec, resolved: dict[str, Any]) -> int:
    """Seconds for a place that watches over starts itself: as asked for, or as the size needs."""
    if spec.custom:
        return spec.container.startup_seconds
    return int(loading_deadline(resolved.get("size", 0)).total_seconds())


def _image(endpoint: Endpoint, spec: Spec) -> Image | None:
    """The image of a container; None where the region runs processes."""
    if spec.custom:
        wish = spec.container
        return Image(
            wish.image,
            command=tuple(shlex.split(wish.command)),
            port=wish.port,
            health_path=wish.health_path,
            username=wish.registry_username,
            password=_reveal(endpoint, wish.registry_secret) if wish.registry_secret else "",
        )
    if endpoint.region.runtime == RuntimeKind.PROCESS:
        return None
    return Image(image_name(endpoint.region, spec))


def image_name(region: Region, spec: Spec) -> str:
    """The container that is asked for: the user's own, the region's for this framework, or ours."""
    if spec.custom:
        return spec.container.image
    images = region.config.get("images", {})
    version = spec.framework_version
    named = images.get(f"{spec.framework}:{version}") or images.get(spec.framework)
    return str(named or f"tir-serving-{spec.framework}:{version or 'latest'}")


def _pinned(endpoint: Endpoint, source: SourceSpec, resolved: dict[str, Any]) -> dict[str, Any]:
    """What a machine without our disk fetches; a version of the registry it gets from this console."""
    pinned = asdict(source) | {
        "revision": resolved["commit"],
        "files": resolved["files"],
        "size": resolved.get("size", 0),
        "hub": settings.HF_ENDPOINT,
        "private": settings.SOURCES_ALLOW_PRIVATE,
    }
    if source.kind == SourceKind.REGISTRY:
        console = endpoint.region.config.get("console_url") or settings.CONSOLE_URL
        pinned["url"] = f"{console}/model-files"
        pinned["declared"] = _declared(endpoint, source)
    return pinned


def _declared(endpoint: Endpoint, source: SourceSpec) -> list[dict[str, Any]]:
    try:
        return list(version_of(source, endpoint.project).files)
    except SourceProblem as problem:
        raise Rejected(problem.message) from None


def _credential(endpoint: Endpoint, revision: Revision) -> str:
    source = revision.wish.source
    if source.kind == SourceKind.REGISTRY:
        return pass_for(revision)
    return _reveal(endpoint, source.token_secret) if source.token_secret else ""


def _options(llm: LlmSpec) -> dict[str, str | int | float]:
    return {
        "data_type": str(llm.data_type),
        "load_format": str(llm.load_format),
        "quantization": str(llm.quantization),
        "calibration_dataset": llm.calibration_dataset,
        "accuracy_threshold": llm.accuracy_threshold,
        "tokenizer_type": str(llm.tokenizer_type),
        "padding": str(llm.padding),
    }


def _pickled(spec: Spec, resolved: dict[str, Any]) -> dict[str, bool]:
    """Let transformers and vLLM load weights that are only pickled: they were looked through when they came.
    Where there are safetensors, nothing else is loaded."""
    files = resolved.get("files", ())
    pickles = spec.engine in (Framework.VLLM, Framework.PYTORCH) and files
    return {"allow_pickle": True} if pickles and not any(file.endswith(".safetensors") for file in files) else {}


def _environment(region: Region, revision: Revision) -> dict[str, str]:
    """The standard variables; a container's runtime says itself where it has put the model."""
    wish = revision.wish.environment
    standard = {"MAX_WORKERS": str(wish.max_workers), "LOG_LEVEL": str(wish.log_level)}
    if region.runtime == RuntimeKind.PROCESS:
        standard[MODEL_PATH] = revision.model_path
    return {**wish.variables, **standard}


def _revealed(endpoint: Endpoint, wanted: Any) -> dict[str, str]:
    return {variable: _reveal(endpoint, name) for variable, name in wanted.items()}


def _reveal(endpoint: Endpoint, name: str) -> str:
    stored = Secret.objects.filter(project=endpoint.project_id, name=name).first()
    if stored is None:
        raise Rejected(f"The secret “{name}” is gone. Store it again, or deploy without it.")
    return stored.reveal()
