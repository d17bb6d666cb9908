"""SSH for Git: a private key that lies in no file, and a server that must show the key we were given."""

import base64
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from endpoints.sources.base import SourceProblem
from endpoints.sources.git_address import Address

BARE_KEY: Final = re.compile(r"(ssh-|ecdsa-|sk-)[\w@.-]+\s+[A-Za-z0-9+/=]+")
SCANNED: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "ssh-rsa")  # the preferred first
SCAN_SECONDS: Final = 5


def private_key(text: str) -> str:
    """The key as ssh reads it. SourceProblem("bad_key") for what is none."""
    key = text.replace("\r\n", "\n").strip() + "\n"
    if BARE_KEY.match(key):
        raise _bad_key("holds the public half of a key. Store the private half, which begins with “-----BEGIN”.")
    load = load_ssh_private_key if "OPENSSH" in key.partition("\n")[0] else load_pem_private_key
    try:
        load(key.encode(), None)
    except TypeError:
        raise _bad_key("holds a key with a passphrase. Make one without, for reading only.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_key("holds no private key. It begins with “-----BEGIN” and ends with “-----”.") from None
    return key


def tool(name: str) -> str:
    """The path of a program that must be installed. SourceProblem("not_installed") if it isn't."""
    found = shutil.which(name)
    if found is None:
        package = "git" if name == "git" else "openssh-client"
        said = f"Git repositories need the program “{name}” where the console runs. Install {package}."
        raise SourceProblem("not_installed", said)
    return found


@contextmanager
def ssh_command(address: Address, place: str, key: str, known_hosts: str, timeout: float) -> Iterator[str]:
    """The command by which Git reaches the server at this address of the network, for as long as it runs."""
    with ExitStack() as held:
        identity, hosts = held.enter_context(_file(key)), held.enter_context(_file(known_hosts))
        settings = {
            "HostName": place,
            "HostKeyAlias": address.known_as,
            "UserKnownHostsFile": hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "CheckHostIP": "no",
            "UpdateHostKeys": "no",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "PreferredAuthentications": "publickey",
            "ForwardAgent": "no",
            "ConnectTimeout": str(int(timeout)),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "2",
            "LogLevel": "ERROR",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        yield shlex.join([tool("ssh"), "-F", "/dev/null", "-T", "-i", identity, *options])


def known_hosts(address: Address, written: str) -> str:
    """The lines a person gave as a known_hosts file; a key without a name before it is this server's."""
    lines = [line.strip() for line in written.splitlines() if line.strip() and not line.startswith("#")]
    named = [f"{address.known_as} {line}" if BARE_KEY.match(line) else line for line in lines]
    return "\n".join(named) + "\n"


def unknown_host(address: Address, place: str) -> SourceProblem:
    """What to check and paste when no key of the server was given."""
    shown = _shown(address, place)
    if shown is None:
        said = f"{address.host} can't be reached by SSH at port {address.port}. Check the address and the network."
        return SourceProblem("no_network", said, "url", passing=True)
    return SourceProblem(
        "unknown_host",
        f"{address.known_as} isn't known here. It shows a key with the fingerprint {_fingerprint(shown)}. "
        f"Check that against what its operator says, then paste this line as host key: {shown}",
        "host_key",
        offer=shown,
    )


def other_host(address: Address, place: str) -> SourceProblem:
    """What to say when the server shows another key than the given one."""
    shown = _shown(address, place)
    now = f"It shows one with the fingerprint {_fingerprint(shown)}: {shown}" if shown else "It shows none now."
    return SourceProblem(
        "other_host",
        f"{address.known_as} doesn't show the host key that was given, so nothing was sent to it. {now} Ask its "
        "operator whether the key was changed; if it wasn't, somebody stands between.",
        "host_key",
    )


def _shown(address: Address, place: str) -> str | None:
    """The key that the server shows, as a known_hosts line."""
    command = [tool("ssh-keyscan"), "-T", str(SCAN_SECONDS), "-p", str(address.port), "--", place]
    try:
        scanned = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_SECONDS * 4, check=False)
    except subprocess.TimeoutExpired:
        return None
    keys = [line.split()[1:3] for line in scanned.stdout.splitlines() if len(line.split()) >= 3]
    for kind in SCANNED:
        for key in keys:
            if key[0] == kind:
                return f"{address.known_as} {kind} {key[1]}"
    return None


def _fingerprint(line: str) -> str:
    _, kind, key = line.split()
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip("=")
    return f"SHA256:{digest} ({kind})"


@contextmanager
def _file(text: str) -> Iterator[str]:
    """A name under which a program that we start can read this; on Linux nothing is written to any disk."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile("w") as file:
            Path(file.name).chmod(0o600)
            file.write(text)
            file.flush()
            yield file.name
        return
    handle = os.memfd_create("tir")
    try:
        os.fchmod(handle, 0o600)
        os.write(handle, text.encode())
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def _bad_key(what: str) -> SourceProblem:
    return SourceProblem("bad_key", f"The secret {what}", "token_secret")
