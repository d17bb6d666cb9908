"""What an image says of itself, in a form that engines and registries share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

LONGEST: Final = 200  # characters of what it says that are shown
MOST: Final = 50  # names of each kind


@dataclass(frozen=True)
class Contents:
    """`size` in bytes: as it lies on a host, or, `packed`, as it is pulled. `architectures` as Go names them.

    Nothing of it is a value that could be a secret: of variables the names, of commands whether there are any.
    """

    system: str
    architectures: tuple[str, ...]
    size: int
    user: str = ""
    ports: tuple[int, ...] = ()
    entrypoint: bool = False
    command: bool = False
    health: bool = False
    variables: tuple[str, ...] = ()
    packed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For a JSON column."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Contents:
        kept: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in data.items()}
        return cls(**kept)


def contents_of(
    config: object, *, system: object, architectures: Iterable[object], size: int, packed: bool = False
) -> Contents:
    """From `config` as OCI's specification and Docker's inspect have it; what is malformed in it is left out."""
    said: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    return Contents(
        system=plain(system),
        architectures=tuple(plain(one) for one in architectures),
        size=size,
        user=plain(said.get("User")),
        ports=tuple(sorted(_ports(said.get("ExposedPorts"))))[:MOST],
        entrypoint=bool(said.get("Entrypoint")),
        command=bool(said.get("Cmd")),
        health=_checks(said.get("Healthcheck")),
        variables=tuple(_variables(said.get("Env")))[:MOST],
        packed=packed,
    )


def inspected(found: Mapping[str, Any]) -> Contents:
    """Of what an engine says of an image that it has."""
    return contents_of(
        found.get("Config"),
        system=found.get("Os"),
        architectures=[found["Architecture"]] if found.get("Architecture") else [],
        size=int(found.get("Size") or 0),
    )


def plain(text: object) -> str:
    """What a stranger wrote, fit to be shown and stored."""
    return "".join(letter if letter.isprintable() else "�" for letter in str(text or ""))[:LONGEST]


def _ports(exposed: object) -> Iterator[int]:
    for written in exposed if isinstance(exposed, Mapping) else ():
        number, _, protocol = str(written).partition("/")
        if number.isdecimal() and len(number) <= 5 and protocol in ("", "tcp"):
            yield int(number)


def _checks(health: object) -> bool:
    test = health.get("Test") if isinstance(health, Mapping) else None
    return isinstance(test, list) and test[:1] not in ([], ["NONE"])


def _variables(env: object) -> Iterator[str]:
    for one in env if isinstance(env, list) else ():
        yield plain(str(one).partition("=")[0])
