"""What each place can run. The wizard greys out by it; the API and a deployment's validation refuse by it."""

from __future__ import annotations

from endpoints.models import InstanceType, Region
from endpoints.models.catalogue import RuntimeKind
from endpoints.spec import Framework, SourceKind

CHOOSE_CONTAINERS = "Choose a region with Docker or Kubernetes."


def reason_against(region: Region, engine: str) -> str:
    """Why this region can't run this engine ("custom": the user's own image); empty if it can, or if nothing
    says that it can't."""
    if region.runtime == RuntimeKind.PROCESS:
        return _no_process(region, engine)
    if engine == Framework.VLLM and region.capacity.get("gpus") == 0:  # what it can't tell refuses nothing
        return f"vLLM needs a GPU, and the region “{region.name}” has none."
    return ""


def _no_process(region: Region, engine: str) -> str:
    where = f"The region “{region.name}” runs processes, not containers."
    if engine == Framework.CUSTOM:
        return f"{where} {CHOOSE_CONTAINERS}"
    if engine == Framework.VLLM:
        return f"vLLM needs a container with a GPU. {where} {CHOOSE_CONTAINERS}"
    return ""


def machine_reason(machine: InstanceType, engine: str) -> str:
    """Why this engine can't use this machine; empty if it can."""
    if engine == Framework.VLLM and not machine.has_gpu:
        return "vLLM needs a GPU, and this machine has none."
    return ""


def source_reason(engine: str, kind: str) -> str:
    """Why this engine can't take its model from a source of this kind; empty if it can."""
    if kind == SourceKind.NONE and engine != Framework.CUSTOM:
        return "Only a custom container can bring its own model."
    return ""
