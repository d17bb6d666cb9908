"""The engines of a Docker region: where they are, how they are asked, and what their errors mean."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from urllib3.exceptions import HTTPError

from endpoints.runtimes.base import MODEL_FOLDER, Unavailable

SOCKET = "unix:///var/run/docker.sock"
LOOPBACK = "127.0.0.1"
QUICK = 15  # seconds for anything but a pull or a build
SILENCE = 300  # seconds without a byte after which a pull or a build has stalled
SETTINGS = {"name", "url", "ca", "cert", "key", "address", "models", "gpus", "network"}


class Client(docker.APIClient):  # type: ignore[misc]
    """The engine's API, reached as the region says: a proxy or an authority for the internet is none for it."""

    @property
    def trust_env(self) -> bool:
        """Whether this process's variables say where it goes and whom it believes."""
        return False

    @trust_env.setter
    def trust_env(self, value: bool) -> None:
        """It isn't for requests to say."""


@dataclass(frozen=True)
class Host:
    """One engine.

    `address` is where its instances' ports are published and reached. With `network`, they aren't published:
    they join that network of the engine and are reached by their addresses in it (a console in a container of
    the same engine). `models` is where this host has the console's folder of models, "" for the same place.
    `gpus` are the devices to hand out; None: those that the engine or this machine names.
    """

    name: str
    url: str
    address: str = LOOPBACK
    network: str = ""
    models: str = ""
    gpus: tuple[str, ...] | None = None
    tls: tuple[str, str, str] | None = None

    @property
    def local(self) -> bool:
        """Whether this is an engine of this machine."""
        return self.url.startswith("unix://")

    @cached_property
    def client(self) -> docker.APIClient:
        """Its API, in the newest version that both sides know. Raises what `asking` turns into Unavailable."""
        return self._connect(QUICK)

    def patient(self) -> docker.APIClient:
        """Another one for something that takes long, to be closed by its owner."""
        return self._connect(SILENCE)

    def close(self) -> None:
        """Let go of its connections; the next question makes new ones."""
        if (client := self.__dict__.pop("client", None)) is not None:
            client.close()

    def mount(self, model: str, store: Path) -> tuple[str, str]:
        """The folder of this host to mount for a model of this machine, and the model's path in an instance.

        The folder around a file is mounted whole: it holds that file's revision and nothing else.
        """
        path = Path(model)
        folder, inside = (path.parent, f"{MODEL_FOLDER}/{path.name}") if path.is_file() else (path, MODEL_FOLDER)
        if self.models and folder.is_relative_to(store):
            return str(PurePosixPath(self.models) / folder.relative_to(store).as_posix()), inside
        return str(folder), inside

    def _connect(self, timeout: int) -> docker.APIClient:
        tls: TLSConfig | bool = False
        if self.tls:
            ca, cert, key = self.tls
            tls = TLSConfig(client_cert=(cert, key), ca_cert=ca, verify=True)
        return Client(base_url=self.url, version="auto", timeout=timeout, tls=tls)


@contextmanager
def asking(host: Host) -> Iterator[docker.APIClient]:
    """The host's client; what goes wrong meanwhile is an outage, never an answer."""
    try:
        yield host.client
    except APIError as error:
        raise Unavailable(f"Docker on {host.name} can't do that now: {words(error)}") from error
    except (DockerException, requests.RequestException, HTTPError, OSError) as error:
        raise Unavailable(f"Docker on {host.name} can't be reached at {host.url}: {_root(error)}") from error


def let_read(model: str) -> None:
    """Let the user that instances run as read a model. The data folder around it stays closed to everybody."""
    path = Path(model)
    folder = path.parent if path.is_file() else path
    try:
        for each in (folder, *folder.rglob("*")):
            mode = each.stat().st_mode
            if (wanted := mode | (0o055 if each.is_dir() else 0o044)) != mode:
                each.chmod(wanted)
    except OSError as error:
        raise Unavailable(f"The model at {model} can't be made readable: {error}") from error


def words(error: APIError) -> str:
    """What the engine said."""
    return str(error.explanation or error).strip().rstrip(".")


def hosts_in(listed: Sequence[Mapping[str, Any]]) -> tuple[Host, ...]:
    """The hosts of a region's settings; this machine's engine if it names none. ValueError in words."""
    found = tuple(_host(one) for one in listed or [{}])
    names = [host.name for host in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two hosts have one name: {', '.join(sorted(names))}")
    return found


def _host(given: Mapping[str, Any]) -> Host:
    if unknown := set(given) - SETTINGS:
        raise ValueError(f"a host has {', '.join(sorted(SETTINGS))}; not {', '.join(sorted(unknown))}")
    url = str(given.get("url") or SOCKET)
    parts = urlsplit(url)
    if parts.scheme not in {"unix", "tcp"}:
        raise ValueError(f"a host's url begins with unix:// or tcp://, not {url!r}")
    name = str(given.get("name") or parts.hostname or "this machine")
    files = tuple(str(given.get(part) or "") for part in ("ca", "cert", "key"))
    if any(files) and not all(files):
        raise ValueError(f"host {name}: TLS takes three files: ca, cert and key")
    if parts.scheme == "tcp" and not given.get("models"):
        raise ValueError(f"host {name}: say in models where it has the console's folder of models")
    return Host(
        name=name,
        url=url,
        address=_address(
            str(given.get("address") or (parts.hostname if parts.scheme == "tcp" else LOOPBACK)), name
        ),
        network=str(given.get("network") or ""),
        models=str(given.get("models") or ""),
        gpus=_gpus(given.get("gpus")),
        tls=(files[0], files[1], files[2]) if all(files) else None,
    )


def _address(address: str, name: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ValueError(f"host {name}: address is the IP address where its instances are reached") from None


def _gpus(given: Any) -> tuple[str, ...] | None:
    """Device ids: a list of them, or how many there are."""
    if given is None:
        return None
    return tuple(str(each) for each in (range(given) if isinstance(given, int) else given))


def _root(error: BaseException) -> str:
    """The innermost reason, without the wrapping that three libraries add."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error.args[-1] if error.args else error) or type(error).__name__
