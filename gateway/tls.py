"""TLS at the gateway itself, where no proxy in front does it: a certificate that is read anew once renewed."""

import logging
import ssl
from pathlib import Path

log = logging.getLogger("gateway")


class Unusable(Exception):
    """The certificate or its key can't be used; the text says which and why."""


class Certificate:
    """A chain and its private key, both PEM files. Connections made after a renewal get the new one."""

    def __init__(self, chain: Path, key: Path) -> None:
        self.chain = chain
        self.key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._stamp()
        self._load()

    def look(self) -> None:
        """Read the files again if they changed; what can't be used is said, and the old one stays."""
        try:
            seen = self._stamp()
            if seen == self._seen:
                return
            self._seen = seen
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # a half-written pair must not spoil the one in use
            trial.load_cert_chain(self.chain, self.key)
            self._load()
            log.info("The certificate in %s was read again", self.chain)
        except (Unusable, OSError) as problem:
            log.warning("The renewed certificate can't be used, so the old one stays: %s", problem)

    def _load(self) -> None:
        try:
            self.context.load_cert_chain(self.chain, self.key)
        except ssl.SSLError as problem:
            why = problem.reason or "it is no PEM file"
            raise Unusable(f"{self.chain} and {self.key} are no certificate with its key: {why}") from problem
        except OSError as problem:
            raise Unusable(f"{problem.filename or self.chain}: {problem.strerror}") from problem

    def _stamp(self) -> tuple[int, ...]:
        try:
            return tuple(path.stat().st_mtime_ns for path in (self.chain, self.key))
        except OSError as problem:
            raise Unusable(f"{problem.filename}: {problem.strerror}") from problem
