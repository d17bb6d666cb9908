"""From a stored revision to the workload a runtime is asked to run."""

from __future__ import annotations

from endpoints.memory import KV_TYPE_FOR
from endpoints.models import Endpoint, Revision, Secret
from endpoints.runtimes.base import Command, Rejected, Workload
from endpoints.spec import Truncation

MODEL_PATH = "MODEL_PATH"


def workload_of(endpoint: Endpoint, revision: Revision, replicas: int, retire: tuple[str, ...]) -> Workload:
    """Everything an instance of this revision needs. Raises Rejected when a secret it names is gone."""
    spec, kind = revision.wish, revision.instance_type
    command = None
    if replicas and revision.model_path:
        command = Command(
            engine=spec.framework,
            model=revision.model_path,
            alias=endpoint.name,
            context_length=spec.llm.max_sequence_length,
            parallel=spec.llm.batch_size,
            kv_cache_type=KV_TYPE_FOR[spec.llm.data_type],
            context_shift=spec.llm.truncation == Truncation.SHIFT,
            workers=spec.environment.max_workers,
            log_level=spec.environment.log_level,
        )
    return Workload(
        owner=endpoint.owner,
        revision=revision.number,
        replicas=replicas,
        command=command,
        retire=retire,
        cpu_millis=kind.vcpus * 1000,
        memory_bytes=kind.memory_bytes,
        gpus=kind.gpu_count,
        env={
            **spec.environment.variables,
            MODEL_PATH: revision.model_path,
            "MAX_WORKERS": str(spec.environment.max_workers),
            "LOG_LEVEL": spec.environment.log_level,
        },
        secrets=_secrets(endpoint, revision) if replicas else {},
    )


def _secrets(endpoint: Endpoint, revision: Revision) -> dict[str, str]:
    wanted = revision.wish.environment.secrets
    stored = {
        one.name: one for one in Secret.objects.filter(project=endpoint.project_id, name__in=wanted.values())
    }
    missing = sorted(set(wanted.values()) - stored.keys())
    if missing:
        raise Rejected(f"The secret “{missing[0]}” is gone. Store it again, or deploy without it.")
    return {variable: stored[name].reveal() for variable, name in wanted.items()}
