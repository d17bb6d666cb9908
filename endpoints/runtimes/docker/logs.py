"""What a container wrote, as numbered lines.

An engine keeps times, not numbers, and drops the oldest lines. So the number of one line per container is kept
beside its time (an anchor); from it the others are counted. A console that finds none counts from the oldest line.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from endpoints.runtimes.base import LogLine
from endpoints.runtimes.docker.hosts import Host, asking

HEADER = struct.Struct(">BxxxL")
TAIL = 200  # lines that are usually enough to find the last one that was read
LONGEST = 16 << 10
MASK = "[secret]"
AT_ONCE = timedelta(milliseconds=100)


@dataclass(frozen=True)
class Said:
    """One line with the engine's time, in text of one length so that it sorts."""

    at: str
    stream: str
    text: str


@dataclass(frozen=True)
class Anchor:
    """The line `number` has the time `at`, and is the `nth` of those with that time."""

    number: int
    at: str
    nth: int


class Anchors:
    """The anchors of an installation, a small file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, container: str) -> Anchor | None:
        try:
            return Anchor(**json.loads((self.folder / container).read_text("ascii")))
        except (FileNotFoundError, ValueError, TypeError):  # never read, or torn: counting begins anew
            return None

    def put(self, container: str, anchor: Anchor) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f"{container}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(anchor)), "ascii")
        draft.replace(self.folder / container)

    def keep(self, containers: Collection[str]) -> None:
        """Drop those of all others."""
        with suppress(FileNotFoundError):
            for file in self.folder.iterdir():
                if file.name.partition(".")[0] not in containers:
                    file.unlink(missing_ok=True)

    def drop(self, container: str) -> None:
        with suppress(FileNotFoundError):
            (self.folder / container).unlink()


def lines(
    host: Host, container: str, anchors: Anchors, hidden: Sequence[str], after: int, limit: int
) -> list[LogLine]:
    """See Runtime.logs."""
    anchor = anchors.get(container)
    numbered = _numbered(host, container, anchor, after)
    wanted = numbered[after:] if after < 0 else [each for each in numbered if each[0] > after]
    found = wanted[:limit]
    reached = found or numbered
    if reached and (anchor is None or reached[-1][0] > anchor.number):
        number, last = reached[-1]
        nth = sum(1 for other, said in numbered if said.at == last.at and other <= number)
        anchors.put(container, Anchor(number, last.at, nth))
    return [
        LogLine(at=_time(said.at), stream=said.stream, text=_masked(said.text, hidden), offset=number)
        for number, said in found
    ]


def last_words(host: Host, container: str, hidden: Sequence[str]) -> str:
    """The last line with something in it; of what came on both streams at once, the one on stderr."""
    said = [each for each in read(host, container, tail=10) if each.text.strip()]
    if not said:
        return ""
    moment = _time(said[-1].at) - AT_ONCE
    complaint = next(
        (each for each in reversed(said) if each.stream == "stderr" and _time(each.at) >= moment), None
    )
    return _masked((complaint or said[-1]).text, hidden)[:500]


def read(host: Host, container: str, *, tail: int | None = None) -> list[Said]:
    """The last lines of a container, or all that are kept."""
    with asking(host) as client:
        answer = client.get(
            f"{client.base_url}/v{client.api_version}/containers/{container}/logs",
            params={"stdout": 1, "stderr": 1, "timestamps": 1, "tail": tail or "all"},
            timeout=client.timeout,
        )
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        return list(_joined(_frames(answer.content)))


def _numbered(host: Host, container: str, anchor: Anchor | None, after: int) -> list[tuple[int, Said]]:
    """Enough lines for this question, with their numbers; a jump where lines after the anchor are gone."""
    if anchor is None:
        return list(enumerate(read(host, container), 1))
    window = max(TAIL, -after)
    said = read(host, container, tail=window)
    index = _find(said, anchor)
    if index is None or (len(said) == window and 0 <= after < anchor.number - index - 1):
        said = read(host, container)
        index = _find(said, anchor)
    return list(enumerate(said, anchor.number + 2 if index is None else anchor.number - index))


def _find(said: Sequence[Said], anchor: Anchor) -> int | None:
    same = [index for index, each in enumerate(said) if each.at == anchor.at]
    return same[min(anchor.nth, len(same)) - 1] if same else None


def _frames(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The engine's pieces: which stream, and what was written to it."""
    position = 0
    while position + HEADER.size <= len(raw):
        kind, size = HEADER.unpack_from(raw, position)
        position += HEADER.size
        yield ("stderr" if kind == 2 else "stdout"), raw[position : position + size]
        position += size


def _joined(frames: Iterable[tuple[str, bytes]]) -> Iterator[Said]:
    """Whole lines: a long one comes in several pieces, each with the time in front."""
    begun: dict[str, tuple[str, bytes]] = {}
    for stream, piece in frames:
        stamp, _, text = piece.partition(b" ")
        at, before = begun.pop(stream, (stamp.decode("ascii", "replace"), b""))
        whole = before + text[: LONGEST - len(before)]
        if text.endswith(b"\n"):
            yield _said(at, stream, whole)
        else:
            begun[stream] = (at, whole)
    for stream, (at, rest) in begun.items():
        yield _said(at, stream, rest)


def _said(at: str, stream: str, raw: bytes) -> Said:
    text = raw.rstrip(b"\r\n").decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    seconds, _, fraction = at.rstrip("Z").partition(".")
    return Said(f"{seconds}.{fraction:0<9}", stream, text)


def _masked(text: str, hidden: Sequence[str]) -> str:
    for secret in hidden:
        text = text.replace(secret, MASK)
    return text


def _time(at: str) -> datetime:
    return datetime.fromisoformat(f"{at[:26]}+00:00").astimezone(UTC)
