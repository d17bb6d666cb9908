"""What one step needs to know of the others: what there is to choose from, and what was chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from django.utils import timezone

from accounts.models import Project
from endpoints.fitting import device_of, need_of
from endpoints.learning import Learned
from endpoints.memory import Estimate, Floor, stated
from endpoints.models import (
    InstanceType,
    MeasuredMemory,
    MemoryFloor,
    ModelVersion,
    Region,
    RegisteredModel,
    Secret,
)
from endpoints.models.measured import device_name, model_digest
from endpoints.spec import GIB, Framework, LlmSpec, SourceKind, SourceSpec
from endpoints.wizard.image_look import ImageLook
from endpoints.wizard.looks import Look, look_at_nothing, look_at_version


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

    def learned(
        self, source: SourceSpec, look: Look, engine: str, data_type: str, machine: InstanceType
    ) -> Learned:
        """What earlier instances of this model tell of its memory."""
        model = model_digest(source, look.found.revision, look.file, self.project)
        key = model, engine, data_type
        if key not in self._learned:
            at = timezone.now()
            self._learned[key] = MeasuredMemory.by_device(*key, at=at), MemoryFloor.by_device(*key, at=at)
        corrections, floors = self._learned[key]
        return Learned(corrections.get(device_name(machine)), floors.get(device_name(machine)))

    @cached_property
    def _learned(self) -> dict[tuple[str, str, str], tuple[dict[str, int], dict[str, Floor]]]:
        return {}

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
    memory_gib: float = 0.0
    data_type: str = LlmSpec.data_type
    quantization: str = LlmSpec.quantization
    image: ImageLook | None = None

    @property
    def project(self) -> Project:
        return self.catalogue.project

    def with_source(self, source: SourceSpec, stored: Look | None) -> Situation:
        """Take what the registry knows of it, or what was stored if it was of this very source."""
        look = stored if stored is not None and stored.of(source, self.engine) else None
        version = self.catalogue.version(source.model, source.version)
        if source.kind == SourceKind.REGISTRY and version:
            look = look_at_version(source, self.engine, version) or look
        elif source.kind == SourceKind.NONE:
            look = look_at_nothing(source, self.engine)
        return replace(self, source=source, look=look)

    def estimate(self, machine: InstanceType, *, length: int, concurrency: int, data_type: str) -> Estimate | None:
        """The memory that one instance needs there; None while the model isn't known, or says nothing of it."""
        known = Learned()
        if self.look is not None and self.source is not None:
            known = self.catalogue.learned(self.source, self.look, self.engine, data_type, machine)
        if self.memory_gib:
            return stated(int(self.memory_gib * GIB), device_of(machine), known.floor)
        if self.look is None:
            return None
        llm = LlmSpec(
            max_sequence_length=length,
            batch_size=concurrency,
            data_type=data_type,
            quantization=self.quantization,
        )
        found = self.look.found
        return need_of(self.engine, llm, found, machine, correction=known.correction, floor=known.floor)
