"""Where models come from: registry, Hugging Face, Git, S3, Google. Pure of Django; settings are arguments."""

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


def source_for(
    spec: Mapping[str, Any], *, store: Path, token: str | None, hub: str, private: bool = True
) -> Source:
    """The source that a revision's source settings name.

    registry: version and the version's path and files; on another machine than the console's, url and declared
    files instead. huggingface: model_id, revision, path, file. git: url, revision, path, file, username, host_key.
    s3: bucket, path, file, url, region, access_key. gcs: bucket, path, file, url. What is missing is "".
    `token` is the secret's value; None sends none at all. `private`: whether addresses may be private ones.
    """
    if spec["kind"] == "registry" and "declared" in spec:
        from endpoints.sources.console import ConsoleSource  # noqa: PLC0415 - for other machines than the console's

        return ConsoleSource.of(spec, token=token)
    if spec["kind"] == "registry":
        return RegistrySource.of(spec, store)
    if spec["kind"] == "huggingface":
        from endpoints.sources.huggingface import HuggingFaceSource  # noqa: PLC0415 - slow to import

        return HuggingFaceSource.of(spec, token=token, hub=hub)
    if spec["kind"] == "git":
        from endpoints.sources.git import GitSource  # noqa: PLC0415 - slow to import

        return GitSource.of(spec, store=store, token=token, private=private)
    return _bucket(spec, token, private)


def _bucket(spec: Mapping[str, Any], token: str | None, private: bool) -> Source:
    if spec["kind"] == "s3":
        from endpoints.sources.s3 import s3_source  # noqa: PLC0415 - slow to import

        return s3_source(spec, token=token, private=private)
    if spec["kind"] == "gcs":
        from endpoints.sources.gcs import gcs_source  # noqa: PLC0415 - slow to import

        return gcs_source(spec, token=token, private=private)
    raise SourceProblem("unknown_source", f"There is no model source “{spec['kind']}”.", "kind")
