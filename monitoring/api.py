"""The REST route of logs: the same stored lines as the page and the socket."""

from __future__ import annotations

from datetime import datetime

from django.http import Http404, HttpRequest
from ninja import Router, Schema
from ninja.params.functions import Query

from accounts.rest import Error, ManageKey, key_of, only
from endpoints.models import Endpoint, Instance
from monitoring import logs
from monitoring.models import LogLine

router = Router(auth=ManageKey(), tags=["Logs"])
LARGEST_SEQUENCE = 2**63 - 1


class LineOut(Schema):
    seq: int
    at: datetime
    stream: str
    text: str
    gap: bool


class LogsOut(Schema):
    """`instances` are those that have logs, newest first; `next_after` goes into `after` for what comes next."""

    instance: str
    instances: list[str]
    lines: list[LineOut]
    next_after: int


@router.get("/endpoints/{name}/logs", response={200: LogsOut, frozenset({401, 403, 404, 422}): Error})
def read_logs(
    request: HttpRequest,
    name: str,
    instance: str = "",
    after: int | None = Query(None, ge=0, le=LARGEST_SEQUENCE),
    limit: int = Query(logs.TAIL, ge=1, le=logs.LARGEST_PAGE),
    q: str = "",
) -> LogsOut:
    """Log lines of one instance, the newest one's if none is named, oldest first.

    Without `after` the last `limit` lines; with it those that follow that sequence number. `gap` marks that
    lines before this one were lost. Logs of ended instances stay readable.
    """
    only(request.GET, ("instance", "after", "limit", "q"))
    endpoint = Endpoint.objects.living().filter(project=key_of(request).project, name=name).first()
    if endpoint is None:
        raise Http404(f"There is no endpoint “{name}” in this project.")
    known = list(logs.instances_of(endpoint)[:50])
    chosen = _chosen(known, instance)
    if chosen is None:
        return LogsOut(instance="", instances=[], lines=[], next_after=0)
    page = logs.page(chosen, after=after, limit=limit, q=q)
    return LogsOut(
        instance=chosen.name,
        instances=[one.name for one in known],
        lines=[_line(line) for line in page.lines],
        next_after=page.last or after or 0,
    )


def _chosen(known: list[Instance], name: str) -> Instance | None:
    if not name:
        return known[0] if known else None
    for one in known:
        if one.name == name:
            return one
    raise Http404(f"This endpoint has no instance “{name}”.")


def _line(line: LogLine) -> LineOut:
    return LineOut(seq=line.sequence, at=line.at, stream=line.stream, text=line.text, gap=line.gap)
