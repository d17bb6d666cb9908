"""Whether a port is free, and if not, who has it."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tir_console.up.options import Address
from tir_console.up.trouble import Trouble

QUIET = range(20_000, 30_000)  # above those of known services, below those of a cluster's nodes


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
    """A port of this machine that nobody has now; where it can be, one that nobody gets in passing either."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        for port in _quiet_ports():
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
        probe.bind(("127.0.0.1", 0))
        chosen: int = probe.getsockname()[1]
        return chosen


def _quiet_ports() -> Iterator[int]:
    """Some below those that Linux gives to whoever connects, or asks for any port at all."""
    try:
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    except OSError:
        end = QUIET.stop
    if among := QUIET[: max(0, end - QUIET.start)]:
        yield from (secrets.choice(among) for _ in range(20))
