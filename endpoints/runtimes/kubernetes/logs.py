"""Log lines of pods, numbered. The API numbers none, so the numbers come from counting.

A log is read from its beginning once, and from then on only what is newer, as long as the caller goes on where
it ended. After a restart of ours it is counted anew. When the kubelet has rotated a log meanwhile (10 MiB unless
it is set otherwise), its beginning is gone, and what is left goes on after the number asked for with a jump, which
says that lines are missing.

A kubelet knows of a restart before the API tells: what it calls the present log may be the next life's already,
and what it calls the previous one that of a life which the API still has for present. So of a life that has ended
only lines of its time are told.

Of a pod that crashes again and again the API gives the newest log only, though its status told how the life before
ended: the end of a log stands in it. That is kept when it is seen, for who asks for the end of a log that is gone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from endpoints.runtimes.base import LogLine
from endpoints.runtimes.kubernetes import lives
from endpoints.runtimes.kubernetes.api import Api, Object, Refused, path_of
from endpoints.runtimes.kubernetes.fetching import words
from endpoints.runtimes.kubernetes.podspec import FETCH, MAIN
from endpoints.runtimes.kubernetes.times import moment

REMEMBERED = 1_000  # logs whose last number is known
SECOND = len("2026-11-28T10:00:00")
MOST_BYTES = 16 << 20  # of one reading
NOTHING_YET = {400, 404}  # "is waiting to start", "previous terminated container not found", no such pod
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One container's log within an instance's."""

    container: str
    previous: bool = False


@dataclass(frozen=True)
class Mark:
    """How far a log was read: the number of its last line, that line's part and second, and how many lines of
    that second were read. (The API tells what is newer by the second, and two streams' lines may swap.)"""

    offset: int
    part: Part
    second: str
    same: int

    def after(self, second: str) -> Mark:
        """The mark behind one more line, of this second."""
        if second > self.second:
            return Mark(self.offset + 1, self.part, second, 1)
        return replace(self, offset=self.offset + 1, same=self.same + (second == self.second))


class Logs:
    """Those of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self._marks: OrderedDict[str, Mark] = OrderedDict()
        self._ends: OrderedDict[str, list[LogLine]] = OrderedDict()
        self._lock = threading.Lock()

    def lines(self, name: str, after: int, limit: int) -> list[LogLine]:
        """See Runtime.logs."""
        found = self._read_now(name, after, limit)
        if found or after >= 0:
            return found
        with self._lock:
            return self._ends.get(name, [])[after:][:limit]

    def note(self, pod: Object) -> None:
        """Keep what its status tells of the ends of logs."""
        for life, end in lives.ends(pod).items():
            told, at = str(end.status.get("message") or ""), _time(str(end.status.get("finishedAt") or ""))
            if not told or at is None or lives.is_forgotten(pod, life):
                continue
            texts = [words(text) if end.of_fetch else text for text in told.splitlines()]
            lines = [LogLine(at=at, stream="stdout", text=text, offset=n) for n, text in enumerate(texts, 1)]
            with self._lock:
                _put(self._ends, lives.name_of(pod, life), lines)

    def _read_now(self, name: str, after: int, limit: int) -> list[LogLine]:
        pod_name, life = lives.split(name)
        try:
            pod = self.api.get(path_of("v1", "pods", self.namespace, pod_name))
        except Refused as refused:
            if refused.status == 404:
                return []
            raise
        if lives.is_leaving(pod) and lives.is_forgotten(pod, life):
            return []
        with self._lock:
            mark = self._marks.get(name)
        if mark is not None and mark.offset == after:
            found = self._newer(pod, life, mark)
        else:
            found = list(self._numbered(pod, parts(pod, life), Mark(0, Part(""), "", 0)))
        if after < 0:
            return [line for line, _ in found[after:]][:limit]
        if found and after > found[-1][1].offset:
            found = _renumbered(found, after)
        wanted = [(line, mark) for line, mark in found if line.offset > after][:limit]
        if wanted:
            self._remember(name, wanted[-1][1])
        return [line for line, _ in wanted]

    def forget(self, name: str) -> None:
        """What was known of this log is not needed any more."""
        with self._lock:
            self._marks.pop(name, None)
            self._ends.pop(name, None)

    def _remember(self, name: str, mark: Mark) -> None:
        with self._lock:
            _put(self._marks, name, mark)

    def _newer(self, pod: Object, life: int, mark: Mark) -> list[tuple[LogLine, Mark]]:
        """What came after the mark, from its part on."""
        rest: Sequence[Part] = parts(pod, life)
        if mark.part not in rest:  # it was the present life's, and is the previous one's now
            mark = replace(mark, part=replace(mark.part, previous=not mark.part.previous))
        if mark.part not in rest:
            return []
        return list(self._numbered(pod, rest[list(rest).index(mark.part) :], mark))

    def _numbered(self, pod: Object, wanted: Sequence[Part], mark: Mark) -> Iterator[tuple[LogLine, Mark]]:
        for part in wanted:
            known = mark if part == mark.part else Mark(mark.offset, part, "", 0)
            mark, skip = known, known.same
            for raw in self._read(pod, part, known.second):
                stamp, _, text = raw.partition(" ")
                at = _time(stamp)
                if at is None or stamp[:SECOND] < known.second:
                    continue
                if skip:
                    skip -= 1
                    continue
                mark = mark.after(stamp[:SECOND])
                yield LogLine(at=at, stream="stdout", text=readable(part, text), offset=mark.offset), mark

    def _read(self, pod: Object, part: Part, since: str) -> list[str]:
        """The whole lines of a part. Of one that has ended none that came later."""
        lines = self._text(pod, part, since)
        status = _status(pod, part.container)
        end = lives.end_of(status, previous=part.previous)
        if end is None:
            return lines
        last = str(end.get("finishedAt") or "")[:SECOND]
        if not part.previous:
            before = self._text(pod, replace(part, previous=True), since)
            if before and (not status.get("restartCount") or (lines and lines[0][:SECOND] > last)):
                lines = before
        return [line for line in lines if line[:SECOND] <= last]

    def _text(self, pod: Object, part: Part, since: str) -> list[str]:
        name = pod["metadata"]["name"]
        query: dict[str, Any] = {
            "container": part.container,
            "timestamps": "true",
            "limitBytes": MOST_BYTES,
            "previous": "true" if part.previous else None,
            "sinceTime": f"{since}Z" if since else None,
        }
        try:
            text = self.api.text(path_of("v1", "pods", self.namespace, name, "log"), **query)
        except Refused as refused:
            if refused.status in NOTHING_YET:
                return []
            raise
        # Only whole lines: what is cut off is read again when the rest is there.
        return text.split("\n")[:-1]


def _put(known: OrderedDict[str, T], name: str, what: T) -> None:
    """As the newest of those that are remembered."""
    known[name] = what
    known.move_to_end(name)
    while len(known) > REMEMBERED:
        known.popitem(last=False)


def parts(pod: Object, life: int) -> list[Part]:
    """Whose logs make up this life's: the fetch's, if it began with one, then the serving container's."""
    fetching, serving = _status(pod, FETCH), _status(pod, MAIN)
    fetches, served = int(fetching.get("restartCount") or 0), int(serving.get("restartCount") or 0)
    behind = fetches + served - life
    fetch = [Part(FETCH)] if fetching else []
    if behind == 0:
        return [*fetch, Part(MAIN)] if not served else [Part(MAIN)]
    if behind != 1 or lives.end_of(serving if served else fetching, previous=True) is None:
        return []
    if not served:
        return [Part(FETCH, previous=True)]
    return [*fetch, Part(MAIN, previous=True)] if served == 1 else [Part(MAIN, previous=True)]


def _status(pod: Object, container: str) -> Object:
    status = pod.get("status") or {}
    both = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return next((one for one in both if one["name"] == container), {})


def readable(part: Part, text: str) -> str:
    """A line of the fetch is JSON, which people would rather read as words."""
    return words(text) if part.container == FETCH else text


def _renumbered(found: list[tuple[LogLine, Mark]], after: int) -> list[tuple[LogLine, Mark]]:
    """Fewer lines than were read before: the log was rotated, so all of these are new, after a gap."""
    shift = after + 1
    return [
        (replace(line, offset=line.offset + shift), replace(mark, offset=mark.offset + shift))
        for line, mark in found
    ]


def _time(stamp: str) -> datetime | None:
    try:
        return moment(stamp)
    except ValueError:
        return None
