"""Whether a port is free, and if not, who has it."""

from __future__ import annotations

import errno
import socket

from tir_console.up.options import Address
from tir_console.up.trouble import Trouble


def require_free(address: Address, *, what: str) -> None:
    """Trouble that names the port, its holder if known, and the variable to change."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as problem:
            raise Trouble(_explanation(address, what, problem)) from None


def _explanation(address: Address, what: str, problem: OSError) -> str:
    host_variable = address.variable.replace("_PORT", "_HOST")
    if problem.errno == errno.EADDRINUSE:
        holder = holder_of(address.port)
        by = f" by {holder}" if holder else ""
        return f"Port {address.port} for the {what} is taken{by}. Set {address.variable} to a free port."
    if problem.errno == errno.EACCES:
        return f"Port {address.port} for the {what} may not be opened by this user. Set {address.variable}."
    reason = problem.strerror or str(problem)
    return f"The {what} can't listen on {address.host}:{address.port}: {reason}. Set {host_variable}."


def holder_of(port: int) -> str:
    """“name (process 123)” of whoever listens on a port; empty where the system doesn't tell us."""
    import psutil  # noqa: PLC0415  only when something is wrong

    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return ""
    for connection in connections:
        if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
            return _named(connection.pid)
    return ""


def _named(pid: int | None) -> str:
    import psutil  # noqa: PLC0415

    if pid is None:
        return ""
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"


def free_port() -> int:
    """A port of this machine that nobody has now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
