"""The port of an engine: known before the model is loaded, and nobody else's once it is."""

from __future__ import annotations

import errno
import os
import socket

from serving.config import Refusal


def held(host: str, port: int, sharing: int = socket.SO_REUSEPORT) -> socket.socket | None:
    """Make sure of a port: for 0 a free one, kept from others by the returned socket; None for a given one.

    The engine binds beside the returned socket with the option `sharing`; that socket never listens, so it takes
    no connection. Refusal 69 if a given port is taken, 64 if this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if port else sharing, 1)
    try:
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        raise _refusal(host, port, error) from error
    if port:
        holder.close()
        return None
    return holder


def _refusal(host: str, port: int, error: OSError) -> Refusal:
    if error.errno == errno.EADDRINUSE:
        return Refusal(69, f"port {port} on {host} is taken")
    return Refusal(64, f"cannot listen on {host}:{port}: {error.strerror}")


def publish(path: str, host: str, port: int) -> None:
    """Write the address into a file, whole or not at all, for whoever started us."""
    shown = f"[{host}]" if ":" in host else host
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as file:
        file.write(f"http://{shown}:{port}\n")
    os.replace(draft, path)


def address(host: str, port: int) -> str:
    """The URL of an engine on this host and port, from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  read, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def listening(host: str, port: int) -> socket.socket:
    """A listening socket for a server of our own. Refusal 69 if the port is taken, 64 for no such address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise _refusal(host, port, error) from error
