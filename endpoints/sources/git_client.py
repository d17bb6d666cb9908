"""Runs Git: nothing of this machine's settings, hooks, helpers or identities, no other protocol than ours, no
secret in a command line, and an end to a server that no longer says anything.

Git's own client and not a library in Python: it alone can ask for a part of a repository and check what comes.
"""

import base64
import os
import resource
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from endpoints.sources.base import SourceProblem
from endpoints.sources.git_address import Address
from endpoints.sources.git_ssh import known_hosts, private_key, ssh_command, tool, unknown_host
from endpoints.sources.network import Unresolved, places, proxy_for, require_end

TICK: Final = 0.5
USER: Final = "oauth2"  # where a token is all that counts
USERS: Final = {"bitbucket.org": "x-token-auth"}
KEPT: Final = ("PATH", "TMPDIR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")
PLAIN: Final = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "false",
    "SSH_ASKPASS": "false",
    "GIT_SSH_VARIANT": "ssh",
    "HOME": os.devnull,
    "LC_ALL": "C",
}
SETTINGS: Final = {
    "core.hooksPath": os.devnull,
    "credential.helper": "",
    "http.followRedirects": "false",
    "protocol.version": "2",
    "fetch.recurseSubmodules": "no",
    "fetch.negotiationAlgorithm": "noop",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "safe.directory": "*",
}


class Failed(Exception):
    """Git ended with an error: its own words, which are for `git_problems` and for nobody else."""


@dataclass(frozen=True)
class Access:
    """A server and what opens it: a token for https, a private key for ssh. Times in seconds."""

    address: Address
    username: str
    secret: str | None = field(repr=False)
    host_key: str
    private: bool = True
    timeout: float = 10.0
    stall: float = 30.0

    @property
    def basic(self) -> str | None:
        """The credential of an https server, as its header says it."""
        if not self.secret:
            return None
        user = self.username or self.address.user or USERS.get(self.address.host, USER)
        return "Basic " + base64.b64encode(f"{user}:{self.secret}".encode()).decode()

    def place(self) -> str | None:
        """The address of the network to connect to; None where a proxy does that."""
        if self.address.scheme == "https" and proxy_for("https", self.address.host):
            return None
        try:
            return places(self.address.host, self.address.port, private=self.private)[0]
        except Unresolved as problem:
            said = f"The name {self.address.host} can't be resolved: {problem}. Check the address."
            raise SourceProblem("no_network", said, "url", passing=True) from None

    @contextmanager
    def opened(self) -> Iterator[dict[str, str]]:
        """The environment in which Git can reach the server."""
        place = self.place()
        if self.address.scheme == "https":
            yield _environment("https", self._https(place))
            return
        assert place is not None  # noqa: S101 - only https goes through proxies
        if not self.host_key.strip():
            raise unknown_host(self.address, place)
        if not self.secret:
            said = "A Git server over SSH wants a key. Choose the secret that holds a private one."
            raise SourceProblem("bad_key", said, "token_secret")
        hosts = known_hosts(self.address, self.host_key)
        with ssh_command(self.address, place, private_key(self.secret), hosts, self.timeout) as command:
            yield _environment("ssh", {}) | {"GIT_SSH_COMMAND": command}

    def _https(self, place: str | None) -> dict[str, str]:
        settings: dict[str, str] = {}
        if self.basic:
            settings[f"http.{self.address.origin}.extraHeader"] = f"Authorization: {self.basic}"
        if place:
            host = f"[{place}]" if ":" in place else place
            settings["http.curloptResolve"] = f"{self.address.host}:{self.address.port}:{host}"
        return settings


def run(
    arguments: Sequence[str],
    environment: dict[str, str],
    *,
    lines: str = "",
    stall: float = 30.0,
    waiting: Callable[[], None] = lambda: None,
    held: int | None = None,
    memory: int | None = None,
) -> bytes:
    """What Git prints, see `heard`."""
    command = [tool("git"), *arguments]
    return heard(command, environment, lines=lines, stall=stall, waiting=waiting, held=held, memory=memory)


def heard(
    command: Sequence[str],
    environment: dict[str, str],
    *,
    lines: str = "",
    stall: float = 30.0,
    waiting: Callable[[], None] = lambda: None,
    held: int | None = None,
    memory: int | None = None,
) -> bytes:
    """What a command prints. Raises Failed, and SourceProblem("stalled") when nothing comes for `stall` seconds,
    "too_long" when it has no end.

    `lines` is its input; `waiting` is called now and then, and may raise to end it; `held` is a lock that the
    processes keep for as long as they live, though we should die; `memory`: bytes that each of them may fill.
    """
    with tempfile.TemporaryFile() as given:
        given.write(lines.encode())
        given.seek(0)
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=() if held is None else (held,),
        )
    with ended(process):
        if memory is not None:
            with suppress(OSError, ValueError):  # it has ended already, or may fill less anyway
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
        said, complaint = _heard(process, stall, waiting)
    if process.returncode:
        raise Failed(complaint.decode(errors="replace"))
    return said


def local() -> dict[str, str]:
    """The environment for what needs no network: Git may not even fetch what it finds missing."""
    return _environment("none", {})


def blob(repository: Path, name: str, offset: int) -> Iterator[bytes]:
    """The bytes of a blob that lies here, from there on."""
    command = [tool("git"), "-C", str(repository), "cat-file", "blob", name]
    process = subprocess.Popen(command, env=local(), stdout=subprocess.PIPE, start_new_session=True)
    with ended(process):
        assert process.stdout is not None  # noqa: S101 - it was asked for
        while offset and (skipped := len(process.stdout.read(min(offset, 1 << 20)))):
            offset -= skipped
        while piece := process.stdout.read(1 << 18):
            yield piece


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """However it goes on, the process and those it started don't outlive this."""
    try:
        yield
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()


def _heard(process: subprocess.Popen[bytes], stall: float, waiting: Callable[[], None]) -> tuple[bytes, bytes]:
    """What it printed, and what it complained of, once it has ended."""
    said: dict[IO[bytes], bytearray] = {}
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            assert stream is not None  # noqa: S101 - both were asked for
            said[stream] = bytearray()
            selector.register(stream, selectors.EVENT_READ, stream)
        since = time.monotonic()
        while selector.get_map():
            for key, _ in selector.select(TICK):
                piece = os.read(key.fd, 1 << 16)
                said[key.data] += piece
                since = time.monotonic()
                require_end(sum(map(len, said.values())), "The Git server")
                if not piece:
                    selector.unregister(key.fileobj)
            waiting()
            if time.monotonic() - since > stall:
                silent = "The Git server said nothing for a while, and was given up. Try again."
                raise SourceProblem("stalled", silent, "url", passing=True)
    process.wait()
    said_all, complaint = said.values()
    return bytes(said_all), bytes(complaint)


def _environment(protocol: str, settings: dict[str, str]) -> dict[str, str]:
    """Settings go by the environment, which other users can't read; command lines all can."""
    given = {**SETTINGS, **settings}
    found = {name: os.environ[name] for name in KEPT if name in os.environ}
    if authorities := os.environ.get("SSL_CERT_FILE"):
        found["GIT_SSL_CAINFO"] = authorities
    found |= {**PLAIN, "GIT_ALLOW_PROTOCOL": protocol, "GIT_CONFIG_COUNT": str(len(given))}
    for number, (name, value) in enumerate(given.items()):
        found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return found
