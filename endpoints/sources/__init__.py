"""Where models come from: our registry and the Hugging Face Hub. Pure of Django; settings are arguments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endpoints.sources.base import Choice, Found, Progress, Source, SourceFile, SourceProblem
from endpoints.sources.registry import RegistrySource
from endpoints.sources.store import StoredFile, import_file

__all__ = [
    "Choice",
    "Found",
    "Progress",
    "Source",
    "SourceFile",
    "SourceProblem",
    "StoredFile",
    "import_file",
    "source_for",
]


def source_for(spec: Mapping[str, Any], *, store: Path, token: str | None, hub: str) -> Source:
    """The source that a revision's source settings name.

    registry: kind, version and the version's path and files. huggingface: kind, model_id, revision (may be
    ""), file (may be ""). `token` is the secret's value; None sends none at all.
    """
    if spec["kind"] == "registry":
        return RegistrySource.of(spec, store)
    if spec["kind"] == "huggingface":
        from endpoints.sources.huggingface import HuggingFaceSource  # noqa: PLC0415 - slow to import

        return HuggingFaceSource.of(spec, token=token, hub=hub)
    raise SourceProblem("unknown_source", f"There is no model source “{spec['kind']}”.", "kind")
