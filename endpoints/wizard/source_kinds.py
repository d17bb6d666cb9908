"""What each kind of source is asked for, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from endpoints.spec import SourceKind


@dataclass(frozen=True)
class Kind:
    """`fields` in the order of the page; `words`: field → label and hint, where they differ from the form's."""

    fields: tuple[str, ...]
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)


KINDS: Final[Mapping[str, Kind]] = {
    SourceKind.REGISTRY: Kind(("model", "version")),
    SourceKind.HUGGING_FACE: Kind(("model_id", "revision", "path", "file", "token_secret")),
    SourceKind.GIT: Kind(
        ("url", "revision", "path", "file", "username", "token_secret", "host_key"),
        {
            "url": ("Repository", "https://, ssh:// or git@host:path. Large files may lie in Git LFS."),
            "token_secret": (
                "Access token or SSH key",
                "A stored secret: an access token for https, a private key without passphrase for ssh.",
            ),
        },
    ),
    SourceKind.S3: Kind(
        ("bucket", "path", "file", "url", "region", "access_key", "token_secret"),
        {
            "url": ("Address of the service", "For MinIO, Ceph and others. Empty: Amazon's own."),
            "token_secret": ("Secret access key", "A stored secret. Without keys the bucket must be public."),
        },
    ),
    SourceKind.GCS: Kind(
        ("bucket", "path", "file", "url", "token_secret"),
        {
            "url": ("Address of the service", "Empty: Google's own."),
            "token_secret": (
                "Service account key",
                "A stored secret with the account's JSON key. Without one the bucket must be public.",
            ),
        },
    ),
    SourceKind.NONE: Kind(()),
}
