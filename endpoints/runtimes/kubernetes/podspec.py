"""A revision's pod: the container that serves, and before it the one that fetches the model. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from endpoints.runtimes.base import MODEL_FOLDER, SERVED_PORT, Command, Image, Rejected, Workload
from endpoints.runtimes.kubernetes.settings import Settings
from endpoints.runtimes.serving import LLAMA_CPP, serving_config

CUSTOM = "custom"
MAIN, FETCH = "model", "fetch"
USER = 65532  # nobody's, in our images and in those of others who run without root
GRACE = 60  # seconds from SIGTERM to SIGKILL: what is being answered may end
SETTLE = 5  # seconds before SIGTERM, until every gateway has heard that it goes
SLOWEST_LINK = 5 * 1024**2  # bytes a second that a model must come in with at the least
PERIOD = 5  # seconds between two probes
SCRATCH = "/tmp"  # noqa: S108  a volume of the pod's own
FETCHER = "/etc/tir/fetch"  # where the fetching container finds what to fetch
CACHE = "/var/cache/tir"  # where it finds the claim of all models
IN_USE, LISTED = "/etc/tir/in-use", "in-use.json"  # and which of them are in use
REPORT = "/dev/termination-log"  # what stands there comes with the container's status
HOW = {"token_secret", "hub", "private"}  # of what is asked for what doesn't change the files
PULL = "IfNotPresent"  # of our own images, which `:latest` would ask a registry for at each start
FETCHER_CPU, FETCHER_MEMORY = "250m", 1 << 30


def pod_spec(settings: Settings, workload: Workload, name: str) -> dict[str, Any]:
    """`spec` of the template. `name` is that of the account and the Secrets, see `manifests`."""
    command = _command(workload)
    pool = settings.pool(workload.machine)
    pulls = [*settings.pull_secrets, *([f"{name}-pull"] if has_pull_secret(command) else [])]
    spec: dict[str, Any] = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE + SETTLE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_main(settings, workload, command, name)],
        "volumes": [*_volumes(settings, command, name), *_shared_memory_volume(workload)],
    }
    if command.fetch:
        spec["initContainers"] = [_fetch(settings, workload, command)]
    if pulls:
        spec["imagePullSecrets"] = [{"name": one} for one in pulls]
    if pool.node_selector:
        spec["nodeSelector"] = dict(pool.node_selector)
    if pool.tolerations:
        spec["tolerations"] = [dict(one) for one in pool.tolerations]
    if settings.runtime_class:
        spec["runtimeClassName"] = settings.runtime_class
    return spec


def has_pull_secret(command: Command) -> bool:
    """Whether its image lies behind credentials of the user's."""
    return command.image is not None and bool(command.image.username or command.image.password)


def port_of(command: Command) -> int:
    """Where it answers."""
    return command.image.port if command.image else SERVED_PORT


def model_of(command: Command) -> str:
    """Where an instance sees its model: a file for llama.cpp, else a folder; "" if the image brings it."""
    if not command.fetch:
        return ""
    files = list(command.fetch["files"])
    return str(PurePosixPath(MODEL_FOLDER, files[0])) if command.engine == LLAMA_CPP else MODEL_FOLDER


def startup_seconds(command: Command) -> int:
    """How long the serving container may take until it is healthy."""
    return max(10, command.startup_seconds)


def fetching_seconds(command: Command) -> int:
    """How long a model may take to come in."""
    size = int((command.fetch or {}).get("size") or 0)
    return 3600 + math.ceil(size / SLOWEST_LINK) if command.fetch else 0


def in_use_name(settings: Settings) -> str:
    """Of the Secret that tells which models of the cache are in use; no secret, but we may write those."""
    return f"{settings.installation}-models-in-use"


def _command(workload: Workload) -> Command:
    if workload.command is None:
        raise Rejected("there is nothing to run: no command")
    if workload.command.model:
        raise Rejected("a model on the console's own disk can't be reached inside a cluster")
    return workload.command


def _main(settings: Settings, workload: Workload, command: Command, name: str) -> dict[str, Any]:
    image = command.image or Image(f"tir-serving-{command.engine}:{command.version or 'latest'}")
    container: dict[str, Any] = {
        "name": MAIN,
        "image": image.name,
        "env": [*_settings(workload, command, image), *_secret_env(workload, name)],
        "ports": [{"name": "http", "containerPort": image.port, "protocol": "TCP"}],
        "resources": _resources(settings, workload),
        "securityContext": _locked_down(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}, *_shared_memory(workload)],
        **_probes(image, command),
        "lifecycle": {"preStop": {"sleep": {"seconds": SETTLE}}},
    }
    if command.engine != CUSTOM:
        container["imagePullPolicy"] = PULL
    if image.command:  # after the image's entrypoint, as `docker run IMAGE` has it
        container["args"] = [_as_written(word) for word in image.command]
    if command.fetch:
        container["volumeMounts"].append(
            {"name": "models", "mountPath": MODEL_FOLDER, "readOnly": True, **_sub_path(settings, command)}
        )
    return container


def _settings(workload: Workload, command: Command, image: Image) -> list[dict[str, Any]]:
    model = model_of(command)
    values = {**workload.env, "HOME": SCRATCH, "PORT": str(image.port), **({"MODEL_PATH": model} if model else {})}
    if not workload.gpus:
        values["NVIDIA_VISIBLE_DEVICES"] = "void"  # many images say "all", which a node may grant
    if command.engine != CUSTOM:
        config = serving_config(
            command,
            model=model,
            host="0.0.0.0",  # noqa: S104  the pod's address, which a NetworkPolicy guards
            port=image.port,
            threads=max(1, workload.cpu_millis // 1000),
            gpus=workload.gpus,
            cache=f"{SCRATCH}/cache",
        )
        if command.requirements.strip():  # here nobody builds an image for them
            config["packages"] = True
        values["TIR_CONFIG"] = json.dumps(config, sort_keys=True)
    if workload.secrets:
        values["TIR_SECRETS"] = ",".join(workload.secrets)  # by which `tir_secrets` finds them
    return [{"name": key, "value": _as_written(value)} for key, value in sorted(values.items())]


def _as_written(text: str) -> str:
    """Escaped: a kubelet takes $(NAME) for the variable's value, a secret's too, and $$ for $."""
    return text.replace("$", "$$")


def _secret_env(workload: Workload, name: str) -> list[dict[str, Any]]:
    return [
        {"name": one, "valueFrom": {"secretKeyRef": {"name": f"{name}-env", "key": one}}}
        for one in sorted(workload.secrets)
    ]


def _resources(settings: Settings, workload: Workload) -> dict[str, Any]:
    """Memory is promised as it is limited; CPU is promised, and what is idle may be used beyond."""
    gpus = {settings.gpu_resource: str(workload.gpus)} if workload.gpus else {}
    memory = str(workload.memory_bytes)
    return {
        "requests": {"cpu": f"{workload.cpu_millis}m", "memory": memory, **gpus},
        "limits": {"memory": memory, **gpus},
    }


def _locked_down() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _probes(image: Image, command: Command) -> dict[str, Any]:
    health = {"httpGet": {"path": image.health_path, "port": "http"}, "timeoutSeconds": 3, "periodSeconds": PERIOD}
    return {
        "startupProbe": {**health, "failureThreshold": math.ceil(startup_seconds(command) / PERIOD)},
        "readinessProbe": {**health, "failureThreshold": 2},
        # A last resort: an engine that is busy for minutes is no reason to lose what it carries.
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 12},
    }


def _fetch(settings: Settings, workload: Workload, command: Command) -> dict[str, Any]:
    memory = str(min(workload.memory_bytes, FETCHER_MEMORY))
    # Of a claim it mounts the whole and makes the model's folder itself: one that a kubelet makes belongs to root.
    into = CACHE if settings.cache else MODEL_FOLDER
    folder = "/".join((into, *_sub_path(settings, command).values()))
    return {
        "name": FETCH,
        "image": settings.fetch_image,
        "imagePullPolicy": PULL,
        "command": ["python", "-m", "endpoints.sources", f"{FETCHER}/source.json", folder],
        "env": [{"name": "HOME", "value": SCRATCH}],
        "resources": {"requests": {"cpu": FETCHER_CPU, "memory": memory}, "limits": {"memory": memory}},
        "securityContext": _locked_down(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "models", "mountPath": into},
            {"name": "source", "mountPath": FETCHER, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
            *([{"name": "in-use", "mountPath": IN_USE, "readOnly": True}] if settings.cache else []),
        ],
    }


def _sub_path(settings: Settings, command: Command) -> dict[str, str]:
    """In a shared cache each model has a folder of its own, named by what was asked for."""
    if not settings.cache:
        return {}
    asked: Mapping[str, Any] = command.fetch or {}
    named = json.dumps({key: asked[key] for key in asked if key not in HOW}, sort_keys=True)
    return {"subPath": hashlib.sha256(named.encode()).hexdigest()[:32]}


def _shared_memory(workload: Workload) -> list[dict[str, str]]:
    return [{"name": "shared-memory", "mountPath": "/dev/shm"}] if workload.gpus else []  # noqa: S108


def _shared_memory_volume(workload: Workload) -> list[dict[str, Any]]:
    """What the processes of several GPUs talk through; 64 MiB, the usual size, is too little for that."""
    memory = {"emptyDir": {"medium": "Memory", "sizeLimit": str(workload.memory_bytes // 2)}}
    return [{"name": "shared-memory", **memory}] if workload.gpus else []


def _volumes(settings: Settings, command: Command, name: str) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    if command.fetch and settings.cache:
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": settings.cache}})
        listed = {"secretName": in_use_name(settings), "defaultMode": 0o440, "optional": True}
        volumes.append({"name": "in-use", "secret": listed})
    elif command.fetch:
        size = {"sizeLimit": settings.storage} if settings.storage else {}
        volumes.append({"name": "models", "emptyDir": size})
    if command.fetch:
        volumes.append({"name": "source", "secret": {"secretName": f"{name}-source", "defaultMode": 0o440}})
    return volumes
