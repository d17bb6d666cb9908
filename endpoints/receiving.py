"""Files on their way into a draft: a piece at a time to disk, checked, and a blob of the store once whole.

The row's `offset` is the truth: bytes of the partial file beyond it came with a piece that was cut off or wrong,
and are overwritten. The digest of the whole is computed as pieces come, so that the last piece takes no longer
than others; after a restart what is there already is read once more.
"""

from __future__ import annotations

import errno
import hashlib
from collections import OrderedDict
from contextlib import suppress
from datetime import datetime
from threading import Lock
from typing import Any, Final, Protocol

from django.conf import settings

from accounts.refused import Refused
from accounts.rest import Problem
from endpoints.models import Upload, VersionDraft
from endpoints.models.endpoint import By
from endpoints.models.registry import store
from endpoints.models.version_draft import UPLOAD_LASTS
from endpoints.sources import SourceProblem
from endpoints.sources import store as storage

LARGEST_PIECE: Final = 64 << 20  # bytes a request may bring: servers keep a request's body until it is whole
READ: Final = 1 << 20
MOST_DIGESTS: Final = 256


class Stream(Protocol):
    """What brings the bytes: a request."""

    def read(self, size: int, /) -> bytes: ...


class _Digests:
    """The digest so far of each upload that this process received pieces of."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, Any]] = OrderedDict()
        self._lock = Lock()

    def take(self, key: str, offset: int) -> Any:
        """The digest of the first `offset` bytes of the partial file."""
        with self._lock:
            size, digest = self._known.pop(key, (0, None))
        if digest is None or size > offset:
            size, digest = 0, hashlib.sha256()
        if size < offset:
            with storage.partial_path(store(), key).open("rb") as file:
                file.seek(size)
                while size < offset and (piece := file.read(min(READ, offset - size))):
                    digest.update(piece)
                    size += len(piece)
        return digest

    def give(self, key: str, offset: int, digest: Any) -> None:
        with self._lock:
            self._known[key] = (offset, digest)
            while len(self._known) > MOST_DIGESTS:
                self._known.popitem(last=False)


_digests = _Digests()


def expect(draft: VersionDraft, path: str, size: int, *, sha256: str = "", by: By, at: datetime) -> Upload:
    """Open an upload; of a file of no bytes that is all. Raises Refused for its path, Problem 413 or 507."""
    if settings.UPLOAD_MAX_BYTES and size > settings.UPLOAD_MAX_BYTES:
        most = storage.readable(settings.UPLOAD_MAX_BYTES)
        raise Problem(413, "too_large", f"A file may have {most}; this one has {storage.readable(size)}.")
    try:
        storage.require_space(store(), size, path)
    except SourceProblem as full:
        raise Problem(507, full.code, full.message) from None
    upload = draft.expect(path, size, sha256=sha256, by=by)
    if size == 0:
        _partial(upload).touch()
        _finish(upload, hashlib.sha256().hexdigest(), at)
    return upload


def receive(
    upload: Upload, stream: Stream, length: int, *, offset: int, sha256: bytes | None, at: datetime
) -> Upload:
    """Add a piece of `length` bytes at `offset`; `sha256` is what it must come to.

    Problem: 409 another offset is wanted, 410 expired, 413 larger than may be, 423 another piece is on its way,
    460 not what it should be, 507 the disk is full. Whatever is refused changes nothing.
    """
    with storage.locked(store(), upload.key, _busy):
        if not (now := Upload.objects.select_related("draft").filter(pk=upload.pk).first()):
            raise _gone()
        _require_open(now, offset, at)
        if length > LARGEST_PIECE:
            raise Problem(413, "too_large", f"Send pieces of {storage.readable(LARGEST_PIECE)} at most.")
        if offset + length > now.size:
            raise Problem(413, "too_large", f"The upload was opened for {now.size:,} bytes; this is beyond them.")
        came, digest = _write(now, stream, length, sha256)
        _keep(now, offset=offset + came, expires_at=at + UPLOAD_LASTS)
        now.draft.touch(at)
        if now.offset < now.size:
            _digests.give(now.key, now.offset, digest)
        elif not now.sha256:
            _finish(now, digest.hexdigest(), at)
    return now


def _keep(upload: Upload, **columns: Any) -> None:
    """Write columns of a row that may have been deleted while a piece came."""
    if not Upload.objects.filter(pk=upload.pk).update(**columns):
        forget(upload)
        raise _gone()
    for name, value in columns.items():
        setattr(upload, name, value)


def offset_of(upload: Upload) -> int:
    """From where on bytes are wanted; less than the row says only if the disk lost some."""
    return upload.offset if upload.sha256 else min(upload.offset, storage.size_of(_partial(upload)))


def remove(upload: Upload) -> None:
    """Forget it, on its way or whole, with its bytes."""
    with storage.locked(store(), upload.key, _busy):
        upload.delete()
    forget(upload)


def forget(upload: Upload) -> None:
    """Take its bytes off the disk."""
    for path in (_partial(upload), upload.place):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or gone
        upload.place.parent.rmdir()


def _require_open(upload: Upload, offset: int, at: datetime) -> None:
    if not upload.sha256 and upload.expires_at <= at:
        raise Problem(410, "expired", "This upload was left too long. Begin it again.")
    wanted = offset_of(upload)
    if offset != wanted:
        raise Problem(409, "wrong_offset", f"Go on at byte {wanted:,}; this piece begins at {offset:,}.")


def _write(upload: Upload, stream: Stream, length: int, sha256: bytes | None) -> tuple[int, Any]:
    """The bytes that came, and the digest of the file so far. A wrong piece leaves nothing."""
    partial, offset = _partial(upload), offset_of(upload)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.touch()
    digest, own = _digests.take(upload.key, offset), hashlib.sha256()
    came = 0
    try:
        with partial.open("r+b") as file:
            file.truncate(offset)
            file.seek(offset)
            while came < length and (piece := stream.read(min(READ, length - came))):
                file.write(piece)
                digest.update(piece)
                own.update(piece)
                came += len(piece)
    except OSError as refused:
        if refused.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Problem(507, "disk_full", "The disk where models lie is full. Free some space.") from None
        raise
    if sha256 is not None and own.digest() != sha256:
        raise Problem(460, "checksum_mismatch", "The piece is not what its checksum says. Send it again.")
    return came, digest


def _finish(upload: Upload, sha256: str, at: datetime) -> None:
    """Make the partial file a blob and link it into the draft's folder; what isn't what was declared goes."""
    partial, root = _partial(upload), store()
    if upload.declared and upload.declared != sha256:
        upload.delete()
        partial.unlink(missing_ok=True)
        raise Problem(
            460,
            "checksum_mismatch",
            f"“{upload.path}” came to {sha256}, not to what was declared. Upload it again.",
        )
    with storage.locked(root, sha256):
        blob = storage.blob_path(root, sha256)
        if blob.exists():
            partial.unlink()
        else:
            storage.keep(partial, root, sha256)
        storage.link(blob, upload.place)
    storage.remember(upload.place, root, sha256)
    _keep(upload, sha256=sha256)
    upload.draft.touch(at)


def _partial(upload: Upload) -> Any:
    return storage.partial_path(store(), upload.key)


def _gone() -> Problem:
    return Problem(410, "gone", "This upload was removed, or its draft published or thrown away.")


def _busy() -> None:
    raise Problem(423, "busy", "A piece of this upload is being received right now. Ask for the offset again.")


def place_whole(draft: VersionDraft, path: str, file: Stream, size: int, *, by: By, at: datetime) -> Upload:
    """A file that came in one piece with a form. Raises as `expect` and `receive` do, and leaves nothing then."""
    upload = expect(draft, path, size, by=by, at=at)
    try:
        while upload.offset < size:
            upload = receive(
                upload, file, min(LARGEST_PIECE, size - upload.offset), offset=upload.offset, sha256=None, at=at
            )
    except (Problem, Refused):
        remove(upload)
        raise
    return upload
