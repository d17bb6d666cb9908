"""What each kind of source is asked for, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from endpoints.spec import SourceKind


@dataclass(frozen=True)
class Kind:
    """`fields` in the order of the page; `words`: field → label and hint, where they differ from the form's;
    `secret`: what the stored secret is called on the button that stores a new one."""

    fields: tuple[str, ...]
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    secret: str = ""


KINDS: Final[Mapping[str, Kind]] = {
    SourceKind.REGISTRY: Kind(("model", "version")),
    SourceKind.HUGGING_FACE: Kind(("model_id", "revision", "path", "file", "token_secret"), secret="token"),  # noqa: S106
    SourceKind.GIT: Kind(
        ("url", "revision", "path", "file", "username", "token_secret", "host_key"),
        {
            "url": ("Repository", "https://, ssh:// or git@host:path. Large files may lie in Git LFS."),
            "token_secret": (
                "Access token or SSH key",
                "A stored secret: an access token for https, a private key without passphrase for ssh.",
            ),
        },
        secret="token or key",  # noqa: S106
    ),
    SourceKind.S3: Kind(
        ("bucket", "path", "file", "url", "region", "access_key", "token_secret"),
        {
            "url": ("Address of the service", "For MinIO, Ceph and others. Empty: Amazon's own."),
            "token_secret": ("Secret access key", "A stored secret. Without keys the bucket must be public."),
        },
        secret="secret access key",  # noqa: S106
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
        secret="service account key",  # noqa: S106
    ),
    SourceKind.NONE: Kind(()),
}
