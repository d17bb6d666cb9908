"""Reading stored log lines: pages of them, a search, a whole log as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from accounts.models import Project
from accounts.roles import Right
from endpoints.models import Endpoint, Instance
from monitoring.models import LogLine

TAIL = 200
LARGEST_PAGE = 1_000
FETCH = 2_000
GAP = "Lines are missing here."


@dataclass(frozen=True)
class Page:
    """Lines oldest first. `first` and `last` are sequence numbers, 0 when there are none."""

    lines: list[LogLine]

    @property
    def first(self) -> int:
        return self.lines[0].sequence if self.lines else 0

    @property
    def last(self) -> int:
        return self.lines[-1].sequence if self.lines else 0

    def as_json(self) -> dict[str, Any]:
        return {"lines": entries(self.lines), "first": self.first, "last": self.last}


def may_read(user: Any, endpoint: Endpoint) -> bool:
    """Logs can hold what callers sent: a right of its own."""
    return Project.objects.where(user, Right.LOGS).filter(pk=endpoint.project_id).exists()


def instances_of(endpoint: Endpoint) -> QuerySet[Instance]:
    """The instances that wrote or write, newest first; ended ones stay, because their last lines say why."""
    return endpoint.instances.select_related("revision").order_by("-started_at", "-pk")


def page(
    instance: Instance, *, after: int | None = None, before: int | None = None, limit: int = TAIL, q: str = ""
) -> Page:
    """The lines after or before a sequence number, or the newest; with `q`, only those that contain it."""
    limit = max(1, min(limit, LARGEST_PAGE))
    lines = matching(instance, q)
    if after is not None:
        return Page(list(lines.filter(sequence__gt=after).order_by("sequence")[:limit]))
    if before is not None:
        lines = lines.filter(sequence__lt=before)
    return Page(list(lines.order_by("-sequence")[:limit])[::-1])


def matching(instance: Instance, q: str = "") -> QuerySet[LogLine]:
    lines = LogLine.objects.filter(instance=instance)
    return lines.filter(Q(text__icontains=q)) if q else lines


def entries(lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    """Lines as pages and sockets get them, with `{"gap": true}` before each that follows lost ones."""
    found: list[dict[str, Any]] = []
    for line in lines:
        if line.gap:
            found.append({"gap": True})
        found.append(as_json(line))
    return found


def as_json(line: LogLine) -> dict[str, Any]:
    return {"seq": line.sequence, "at": line.at.isoformat(), "stream": line.stream, "text": line.text}


def rows(shown: Page) -> list[dict[str, Any]]:
    """Lines as the log viewer's template shows them, with a line of ours where some were lost."""
    found: list[dict[str, Any]] = []
    for line in shown.lines:
        if line.gap:
            found.append({"seq": line.sequence - 1, "at": line.at, "stream": "gap", "text": GAP})
        found.append({"seq": line.sequence, "at": line.at, "stream": line.stream, "text": line.text})
    return found


def as_text(instance: Instance, q: str = "") -> Iterator[str]:
    """The whole log as text, read in portions: time, stream, line."""
    for line in matching(instance, q).order_by("sequence").iterator(chunk_size=FETCH):
        if line.gap:
            yield f"--- {GAP} ---\n"
        yield f"{line.at.isoformat(timespec='milliseconds')} {line.stream:<6} {line.text}\n"
