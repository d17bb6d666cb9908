"""Keeping the store in order: what nobody needs goes, and where room is short what was used longest ago."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings

from accounts.rest import Problem
from endpoints import receiving
from endpoints.models import ModelVersion, Revision, Upload, VersionDraft, VersionImport
from endpoints.models.registry import current, store
from endpoints.sources import cache
from endpoints.sources.store import readable

log = logging.getLogger(__name__)
IMPORT_TOLD = timedelta(days=30)  # for which an import that is over can be asked about


def tidy(*, at: datetime) -> list[cache.Unit]:
    """One round over this machine's store; answers what was evicted. May run twice at once, or be cut off."""
    expire(at)
    remove_orphans()
    cache.tidy(store())
    used = in_use()
    for path in used:
        if (store() / path).is_dir():
            cache.claim(store(), store() / path)
    gone = cache.make_room(store(), limit=settings.STORE_MAX_BYTES, in_use=used)
    for unit in gone:
        log.warning("Evicted %s, %s: no endpoint uses it, and room is short", unit.path, readable(unit.size))
    return gone


def in_use() -> set[str]:
    """The units that endpoints serve from, deploy from or would start from."""
    paths = current(Revision.objects.exclude(model_path="")).values_list("model_path", flat=True)
    return {unit for path in paths if (unit := cache.unit_of(store(), Path(path)))}


def expire(at: datetime) -> None:
    """End uploads and drafts that were left too long, and forget imports that were over long ago."""
    for upload in Upload.objects.filter(sha256="", expires_at__lte=at).select_related("draft"):
        try:
            receiving.remove(upload)
        except Problem:
            continue  # a piece is on its way after all
    VersionImport.objects.filter(draft=None, ended_at__lt=at - IMPORT_TOLD).delete()
    for draft in VersionDraft.objects.filter(expires_at__lte=at).select_related("model__project"):
        draft.discard(by=None)


def remove_orphans() -> None:
    """Folders of deleted versions and drafts, and what was on its way into them."""
    registry = store() / "registry"
    folders = {path.name: path for path in registry.iterdir()} if registry.is_dir() else {}
    partials = {path.name: path for path in (store() / "partial").glob("upload-*")}
    paths = ModelVersion.objects.filter(path__contains="/registry/").values_list("path", flat=True)
    known = {path.partition("/registry/")[2].partition("/")[0] for path in paths}
    known |= {str(pk) for pk in VersionDraft.objects.values_list("pk", flat=True)}
    for name in folders.keys() - known:
        cache.remove(store(), folders[name])
    awaited = {f"upload-{pk}" for pk in Upload.objects.filter(sha256="").values_list("pk", flat=True)}
    for name in partials.keys() - awaited:
        partials[name].unlink(missing_ok=True)
