"""Where a Git repository is, from what a person wrote."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from endpoints.sources.base import SourceProblem
from endpoints.sources.network import PORTS

SCP: Final = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\]):(?!//)(?P<path>.+)")
HOST: Final = re.compile(r"[\w.:-]+")
# What hosts call their tokens: they are pasted as user names, too.
TOKEN: Final = re.compile(r"(gh[a-z]_|github_pat_|gl[a-z]+-|hf_|[0-9a-f]{40}$).*")
UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")
SSH_USER: Final = "git"


@dataclass(frozen=True)
class Address:
    """`url` is what Git gets: it holds no secret. `user` is "" where none is written."""

    url: str
    scheme: str
    host: str
    port: int
    path: str
    user: str

    @property
    def origin(self) -> str:
        """https://host:port, as Git's settings for one server are named."""
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"

    @property
    def known_as(self) -> str:
        """The server's name in a known_hosts file."""
        return self.host if self.port == PORTS["ssh"] else f"[{self.host}]:{self.port}"

    @classmethod
    def of(cls, text: str) -> "Address":
        """SourceProblem("malformed_url") for what is not https://…, ssh://… or git@host:path."""
        written = text.strip()
        if UNSAFE.search(written) or not written:
            raise _malformed(written)
        if "://" in written:
            return cls._of_url(written)
        found = SCP.fullmatch(written)
        if not found or found["host"].startswith("-") or found["path"].startswith("-"):
            raise _malformed(written)
        user, host = found["user"] or SSH_USER, found["host"].strip("[]")
        return cls(f"{user}@{found['host']}:{found['path']}", "ssh", host, PORTS["ssh"], found["path"], user)

    @classmethod
    def _of_url(cls, written: str) -> "Address":
        try:
            found = urlsplit(written)
            port = found.port
        except ValueError:
            raise _malformed(written) from None
        host, scheme = found.hostname or "", found.scheme.lower()
        if found.password is not None or TOKEN.fullmatch(found.username or ""):
            said = "Take the credential out of the URL: store it as a secret and choose that."
            raise SourceProblem("malformed_url", said, "url")
        if scheme not in {"https", "ssh"} or not HOST.fullmatch(host) or host.startswith("-"):
            raise _malformed(written)
        if found.path in {"", "/"} or found.query or found.fragment:
            raise _malformed(written)
        return cls._joined(found, scheme, host, port or PORTS[scheme])

    @classmethod
    def _joined(cls, found: SplitResult, scheme: str, host: str, port: int) -> "Address":
        user = unquote(found.username or "") or (SSH_USER if scheme == "ssh" else "")
        at = f"{user}@" if scheme == "ssh" else ""
        path = found.path.rstrip("/")
        return cls(f"{scheme}://{at}{_bracketed(host)}:{port}{path}", scheme, host, port, path, user)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _malformed(written: str) -> SourceProblem:
    plain = " Plain http would show the token to all on the way." if written.startswith("http://") else ""
    said = (
        f"“{written[:200]}” is no address of a Git repository that can be fetched. It looks like "
        f"https://host/owner/name.git, ssh://git@host/owner/name.git or git@host:owner/name.git.{plain}"
    )
    return SourceProblem("malformed_url", said, "url")
