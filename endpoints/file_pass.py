"""The token by which a revision's instances fetch its registered model from this console."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.core import signing

from endpoints.models import Revision
from endpoints.origin import version_of
from endpoints.sources.registry import RegistrySource
from endpoints.spec import SourceKind

SALT = "model-files"


def pass_for(revision: Revision) -> str:
    """It opens this revision's files for as long as its endpoint lives."""
    return signing.dumps(revision.pk, salt=SALT)


def file_for(token: str, path: str) -> Path | None:
    """Where the file lies; None for a token that opens nothing. SourceProblem for a file that isn't there."""
    try:
        pk = signing.loads(token, salt=SALT)
    except signing.BadSignature:
        return None
    living = Revision.objects.filter(pk=pk, endpoint__deleted_at=None).select_related("endpoint__project")
    revision = living.first()
    if revision is None or revision.wish.source.kind != SourceKind.REGISTRY:
        return None
    version = version_of(revision.wish.source, revision.endpoint.project)
    spec = {"path": version.path, "files": version.files}
    return RegistrySource.of(spec, Path(settings.DATA_DIR)).local(path)
