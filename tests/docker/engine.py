"""A Docker engine for the tests: one of their own, whose every trace goes with it."""

from __future__ import annotations

import gc
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import docker
import psutil
import pytest
from docker.errors import DockerException

from tests.wait import until

BUSYBOX = Path("/bin/busybox")
TOOLS = (
    "sh",
    "cat",
    "echo",
    "httpd",
    "kill",
    "ls",
    "mount",
    "sleep",
    "stat",
    "tail",
    "wget",
    "nc",
    "id",
    "touch",
    "seq",
)


def wanted() -> None:
    """Skip where no engine can be had."""
    missing = [name for name in ("dockerd", "containerd", "runc") if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not BUSYBOX.exists():
        missing.append("busybox-static")
    if not missing:
        return
    cannot(f"the Docker tests start an engine of their own; there is no {', '.join(missing)} here")


def cannot(words: str) -> NoReturn:
    """Skip, or fail in CI, where the Docker tests must run."""
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


@dataclass
class Engine:
    """`dockerd` in a folder of its own. Containers live on while it is away, as on a host with live-restore.

    `alone`: it has a network of its own, with its firewall in it, and nothing outside: what an engine's rules do
    to those of another, or of this machine, nobody has to fear. Otherwise it has no firewall.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tird-", dir="/tmp")))
    live_restore: bool = True
    options: tuple[str, ...] = ()
    alone: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/sock"

    @cached_property
    def client(self) -> docker.APIClient:
        client = docker.APIClient(self.url, version="auto", timeout=60)
        client.trust_env = False
        return client

    def start(self) -> None:
        argv = ["dockerd", "--host", self.url, "--data-root", f"{self.folder}/data"]
        argv += ["--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid"]
        if self.alone:
            up = f'{BUSYBOX} ip link set lo up && exec "$@"'
            argv = ["unshare", "--net", "--", str(BUSYBOX), "sh", "-c", up, "sh", *argv, "--bridge=none"]
        else:
            argv += ["--iptables=false", "--ip6tables=false", "--ip-masq=false"]
            # An engine that has no bridge of its own takes away the one of an engine that is there.
            argv += ["--bridge=docker0" if Path("/sys/class/net/docker0").exists() else "--bridge=none"]
        argv += [*self.options, *(["--live-restore"] if self.live_restore else [])]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        until(self.answers, seconds=120, what=self.said)

    def answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"dockerd ended: {self.said()}")
        client = docker.APIClient(self.url, version="1.41", timeout=5)
        with closing(client), suppress(DockerException, OSError):
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """kill -9 of the engine, as when it crashes. Its containers' own parents live on."""
        assert self.process
        self.process.kill()
        self.process.wait()
        # Its containerd ends with it. Where nobody collects the remains, the next engine would take it for alive.
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def said(self) -> str:
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-20:])

    def end(self) -> None:
        """End it, with all that it ever started."""
        if self.process and self.process.poll() is None:
            with suppress(DockerException, OSError):
                with ThreadPoolExecutor(max_workers=4) as pool:
                    list(pool.map(self._remove, self.client.containers(all=True)))
                for network in self.client.networks(filters={"type": "custom"}):  # bridges outlive an engine
                    self.client.remove_network(network["Id"])
            self.client.close()
            self.process.kill()
            self.process.wait()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.folder) in part for part in process.cmdline()):
                    process.send_signal(signal.SIGKILL)
        until(self._removed, what=f"{self.folder} to be gone")
        gc.collect()  # the sockets of answers that never came

    def _remove(self, container: Mapping[str, str]) -> None:
        self.client.remove_container(container["Id"], force=True, v=True)

    def _removed(self) -> bool:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if (point := line.split()[1]).startswith(str(self.folder)):
                subprocess.run(["umount", "-l", point], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        return not self.folder.exists()

    def add_image(self, name: str, files: Mapping[str, str], *, changes: Sequence[str] = ()) -> None:
        """An image of busybox and these executable texts."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for folder in ("bin", "tmp", "proc", "sys", "dev", "etc", "opt", "opt/model"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                archive.addfile(entry)
            archive.add(BUSYBOX.resolve(), "bin/busybox")
            for tool in TOOLS:
                entry = tarfile.TarInfo(f"bin/{tool}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)
            for path, text in files.items():
                entry = tarfile.TarInfo(path)
                entry.mode, entry.size = 0o755, len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        self.client.import_image_from_data(made.getvalue(), *name.split(":"), changes=list(changes))


def left_over(engine: Engine, mine: Callable[[Mapping[str, str]], bool]) -> list[str]:
    """What is still there of a region: containers and networks whose labels say so, and any volume."""
    found = [one["Names"][0] for one in engine.client.containers(all=True) if mine(one["Labels"] or {})]
    found += [one["Name"] for one in engine.client.networks() if mine(one["Labels"] or {})]
    return found + [one["Name"] for one in engine.client.volumes()["Volumes"] or ()]
