"""The facts of endpoints. Web and CLI write desired columns, the controller observed ones."""

from endpoints.models.admission import Admission
from endpoints.models.catalogue import InstanceType, Region
from endpoints.models.deployment import Deployment, Instance, Phase
from endpoints.models.draft import Draft
from endpoints.models.endpoint import Endpoint, IdempotentRequest, Revision
from endpoints.models.event import Event
from endpoints.models.measured import MeasuredMemory
from endpoints.models.memory_floor import MemoryFloor
from endpoints.models.registry import ModelVersion, RegisteredModel
from endpoints.models.secret import Secret, Undecryptable
from endpoints.models.version_draft import Upload, VersionDraft
from endpoints.models.version_import import ImportState, VersionImport

__all__ = [
    "Admission",
    "Deployment",
    "Draft",
    "Endpoint",
    "Event",
    "IdempotentRequest",
    "ImportState",
    "Instance",
    "InstanceType",
    "MeasuredMemory",
    "MemoryFloor",
    "ModelVersion",
    "Phase",
    "Region",
    "RegisteredModel",
    "Revision",
    "Secret",
    "Undecryptable",
    "Upload",
    "VersionDraft",
    "VersionImport",
]
