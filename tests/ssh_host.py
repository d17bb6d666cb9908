"""Debian's sshd, run by hand on a port of its own as the current user, serving Git and LFS's way in."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from tests.wait import until
from tir_console.up.ports import free_port

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
COMMANDS = """#!/bin/sh
[ ! -e "{gate}" ] || read -r _ < "{gate}"
case "$SSH_ORIGINAL_COMMAND" in
git-lfs-authenticate*) cat "{lfs}" ;;
git-upload-pack*) echo "$SSH_ORIGINAL_COMMAND" >> "{log}"; exec sh -c "$SSH_ORIGINAL_COMMAND" ;;
*) echo refused >&2; exit 1 ;;
esac
"""
SETTINGS = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
ForceCommand {folder}/commands
AcceptEnv GIT_PROTOCOL
"""


def key(path: Path, *, passphrase: str = "") -> str:
    """A new private key's text; its public half lies beside it."""
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(made, check=True)
    return path.read_text()


class SshHost:
    """`lfs` is the file with what it answers to git-lfs-authenticate; while the pipe `gate` is there, whoever
    comes waits for a line from it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lfs, self.log, self.gate = folder, folder / "lfs.json", folder / "log", folder / "gate"
        folder.mkdir()
        self.private = key(folder / "reader")
        self.host_key = key(folder / "host") and (folder / "host.pub").read_text().rsplit(" ", 1)[0]
        shutil.copy(folder / "reader.pub", folder / "authorized")
        (folder / "commands").write_text(COMMANDS.format(lfs=self.lfs, log=self.log, gate=self.gate))
        (folder / "commands").chmod(0o755)
        self.port = free_port()
        (folder / "config").write_text(SETTINGS.format(port=self.port, folder=folder))

    @property
    def fingerprint(self) -> str:
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(self.folder / "host.pub")], capture_output=True, text=True, check=True
        )
        return shown.stdout.split()[1]

    @property
    def user(self) -> str:
        return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()

    def __enter__(self) -> "SshHost":
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "config")]
        self.said = (self.folder / "said").open("w")
        self.process = subprocess.Popen(command, stderr=self.said)
        until(self._listens, what=(self.folder / "said").read_text)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait()
        self.said.close()

    def _listens(self) -> bool:
        return bool(re.search(r"Server listening", (self.folder / "said").read_text()))
