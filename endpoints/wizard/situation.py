"""What one step needs to know of the others: what there is to choose from, and what was chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from accounts.models import Project
from endpoints.memory import KV_TYPE_FOR, Device, Estimate, estimate
from endpoints.models import InstanceType, ModelVersion, Region, RegisteredModel, Secret
from endpoints.spec import Framework, LlmSpec, SourceKind, SourceSpec
from endpoints.wizard.looks import Look, look_at_nothing, look_at_version

GPU_UTILIZATION = 0.9


@dataclass(frozen=True)
class Catalogue:
    """What a project may choose from, read once."""

    project: Project

    @cached_property
    def regions(self) -> dict[str, Region]:
        return {region.slug: region for region in Region.objects.filter(enabled=True)}

    @cached_property
    def types(self) -> dict[str, InstanceType]:
        return {kind.slug: kind for kind in InstanceType.objects.filter(enabled=True)}

    @cached_property
    def models(self) -> dict[str, RegisteredModel]:
        """By name; the project's own hides a shared one of the same name."""
        found = RegisteredModel.objects.usable_in(self.project).prefetch_related("versions")
        shared_first = sorted(found, key=lambda model: (model.project_id is not None, model.name))
        return {model.name: model for model in shared_first}

    @cached_property
    def secrets(self) -> list[str]:
        return list(Secret.objects.filter(project=self.project).values_list("name", flat=True))

    def version(self, name: str, number: int) -> ModelVersion | None:
        model = self.models.get(name)
        found = model.versions.all() if model else ()
        return next((version for version in found if version.number == number), None)


@dataclass(frozen=True)
class Situation:
    """Grows from step to step; what isn't chosen yet, or isn't known, is None."""

    catalogue: Catalogue
    region: Region | None = None
    engine: str = Framework.LLAMA_CPP
    source: SourceSpec | None = None
    look: Look | None = None
    machine: InstanceType | None = None
    data_type: str = LlmSpec.data_type

    @property
    def project(self) -> Project:
        return self.catalogue.project

    def with_source(self, source: SourceSpec, stored: Look | None) -> Situation:
        """Take what the registry knows of it, or what was stored if it was of this very source."""
        look = stored if stored is not None and stored.of(source, self.engine) else None
        if source.kind == SourceKind.REGISTRY:
            version = self.catalogue.version(source.model, source.version)
            look = look_at_version(source, self.engine, version) if version else None
        elif source.kind == SourceKind.NONE:
            look = look_at_nothing(source, self.engine)
        return replace(self, source=source, look=look)

    def estimate(self, machine: InstanceType, *, length: int, concurrency: int, data_type: str) -> Estimate | None:
        """The memory that one instance needs there; None while the model isn't known."""
        shape = self.look.shape if self.look else None
        if shape is None:
            return None
        kv_type = KV_TYPE_FOR.get(data_type, "f16")
        return estimate(shape, length=length, concurrency=concurrency, kv_type=kv_type, device=device_of(machine))


def device_of(machine: InstanceType) -> Device:
    if machine.has_gpu:
        return Device("gpu", machine.gpu_memory_bytes, utilization=GPU_UTILIZATION)
    return Device("cpu", machine.memory_bytes)
