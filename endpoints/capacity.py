"""What a place can hold, as its runtime tells it and as a region's row keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_POOL = "default"  # of machines for instance types that have none of their own


@dataclass(frozen=True)
class Piece:
    """One machine of a place of several: an instance lies on one of them, never across two.

    `pools` names those whose instances it takes, of Capacity.pools; empty: everybody's.
    """

    cpu_millis: int
    cpu_millis_free: int
    memory_bytes: int
    memory_bytes_free: int
    gpus: int
    gpus_free: int
    pools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capacity:
    """What this place can hold, and what is not yet promised to an instance. `reason` explains a limit;
    `walls` says what keeps instances apart from one another, where that was looked at.

    Where nobody may count (`known` is False) the numbers are larger than anything that can be asked for. `pieces`
    are its machines, if it has several or may have; `pools` the instance types that have machines of their own.
    `architectures` are those of its processors, as Go and images name them (amd64, arm64); none if not known.
    """

    cpu_millis: int
    cpu_millis_free: int
    memory_bytes: int
    memory_bytes_free: int
    gpus: int
    gpus_free: int
    reason: str
    known: bool = True
    pieces: tuple[Piece, ...] = ()
    pools: tuple[str, ...] = ()
    walls: str = ""
    architectures: tuple[str, ...] = ()

    def of(self, machine: str) -> tuple[Piece, ...]:
        """The machines that take instances of this type."""
        pool = machine if machine in self.pools else DEFAULT_POOL
        return tuple(one for one in self.pieces if not one.pools or pool in one.pools)

    def fitting(self, *, cpu_millis: int, memory_bytes: int, gpus: int, machine: str = "") -> int:
        """How many more instances of this size there is room for."""
        count = _times(self, cpu_millis, memory_bytes, gpus)
        if not self.pieces:
            return count
        return min(count, sum(_times(one, cpu_millis, memory_bytes, gpus) for one in self.of(machine)))


def read(told: Mapping[str, Any]) -> Capacity:
    """From what `dataclasses.asdict` made of one."""
    pieces = tuple(Piece(**{**one, "pools": tuple(one["pools"])}) for one in told.get("pieces", ()))
    names = {name: tuple(told.get(name, ())) for name in ("pools", "architectures")}
    return Capacity(**{**told, "pieces": pieces, **names})


def _times(free: Capacity | Piece, cpu_millis: int, memory_bytes: int, gpus: int) -> int:
    counts = [free.cpu_millis_free // cpu_millis, free.memory_bytes_free // memory_bytes]
    return max(0, min(counts + ([free.gpus_free // gpus] if gpus else [])))
