"""The REST routes of remembered requests: the same rows as the page."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest
from ninja import Router, Schema
from ninja.params.functions import Query
from pydantic import ConfigDict, Field

from accounts.rest import Error, ManageKey, Problem, key_of, only
from endpoints.models import Endpoint
from monitoring import bodies, passports, remembering
from monitoring.body_forms import patterns_of
from monitoring.models import BodySampling, RequestRecord, StatusClass

router = Router(auth=ManageKey(), tags=["Requests"])
PROBLEMS = {frozenset({401, 403, 404, 422}): Error}
LARGEST_PAGE = 200


class PartOut(Schema):
    name: str
    ms: float


class RequestOut(Schema):
    """Times in milliseconds, null where it did not come so far. `code` is that of a refusal by the gateway.
    `parts` are the stretches of its time in order; together they are `total_ms`."""

    id: UUID
    request_id: str
    ended_at: datetime
    remembered_as: list[str]
    method: str
    path: str
    status: int
    code: str | None
    revision: int | None
    key: str | None
    instance: str | None
    stream: bool
    cold_start: bool
    queue_ms: float
    connect_ms: float
    first_byte_ms: float | None
    ttft_ms: float | None
    total_ms: float
    parts: list[PartOut]
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    request_bytes: int
    response_bytes: int
    cost_basis: str | None


class RequestWithBodiesOut(RequestOut):
    """Bodies are null unless the endpoint keeps them and this request was drawn; what was redacted is gone."""

    request_body: str | None
    answer_body: str | None


class BodiesIn(Schema):
    """`one_in`: of so many requests, one."""

    model_config = ConfigDict(extra="forbid")

    one_in: int = Field(100, ge=1, le=1_000_000)
    patterns: list[str] = []


class BodiesOut(Schema):
    kept: bool
    one_in: int | None
    patterns: list[str]


class RequestsOut(Schema):
    """Newest first; `next_cursor` goes into `cursor` for what is older, null at the end."""

    items: list[RequestOut]
    next_cursor: UUID | None


@router.get("/endpoints/{name}/requests", response={200: RequestsOut} | PROBLEMS)
def list_requests(
    request: HttpRequest,
    name: str,
    kept: str = "",
    status: str = "",
    q: str = "",
    cursor: UUID | None = None,
    limit: int = Query(50, ge=1, le=LARGEST_PAGE),
) -> RequestsOut:
    """Requests that are remembered: errors, the slowest, a sample; all the others are only counted.

    `kept` (errors, slowest, sample), `status` (a class such as 5xx, or one status) and `q` (a part of the
    request id) narrow them.
    """
    only(request.GET, ("kept", "status", "q", "cursor", "limit"))
    if kept and kept not in passports.Kept.values:
        raise _unknown("kept", passports.Kept.values)
    if status and not passports.is_status(status):
        raise _unknown("status", [*StatusClass.values, "a status such as 502"])
    rows = passports.found(_endpoint(request, name), kept=kept, status=status, q=q)
    older = list((_after(rows, cursor) if cursor else rows)[: limit + 1])
    items = [_shown(record) for record in older[:limit]]
    return RequestsOut(items=items, next_cursor=items[-1].id if len(older) > limit else None)


@router.get("/endpoints/{name}/requests/{request_id}", response={200: RequestWithBodiesOut} | PROBLEMS)
def read_request(request: HttpRequest, name: str, request_id: str) -> RequestWithBodiesOut:
    """The newest remembered request with this id: the one in the answer's `X-Request-Id`."""
    only(request.GET, ())
    found = passports.found(_endpoint(request, name)).defer(None).filter(request_id=request_id).first()
    if found is None:
        kept = remembering.kept_for(settings.REQUEST_RECORD_DAYS)
        raise Http404(f"This request is not remembered. {remembering.RULES} {kept} {remembering.BEFORE}")
    told = _shown(found).dict()
    told |= {"request_body": found.request_body or None, "answer_body": found.answer_body or None}
    return RequestWithBodiesOut(**told)


@router.get("/endpoints/{name}/bodies", response={200: BodiesOut} | PROBLEMS)
def read_bodies_kept(request: HttpRequest, name: str) -> BodiesOut:
    """Whether bodies are kept, of how many requests those of one, and what is redacted beside the usual."""
    only(request.GET, ())
    return _sampling(_endpoint(request, name))


@router.put("/endpoints/{name}/bodies", response={200: BodiesOut} | PROBLEMS)
def keep_bodies(request: HttpRequest, name: str, wish: BodiesIn) -> BodiesOut:
    """Keep the bodies of one request in `one_in` from now on, redacted; `patterns` are RE2's."""
    only(request.GET, ())
    endpoint = _endpoint(request, name)
    try:
        patterns = patterns_of(wish.patterns)
    except DjangoValidationError as problem:
        texts = {"patterns": problem.messages}
        raise Problem(422, "invalid", "These patterns can't be used.", texts) from None
    bodies.keep(endpoint, one_in=wish.one_in, patterns=patterns, by=key_of(request))
    return _sampling(endpoint)


@router.delete("/endpoints/{name}/bodies", response={200: BodiesOut} | PROBLEMS)
def stop_keeping_bodies(request: HttpRequest, name: str) -> BodiesOut:
    """Keep none any more, and remove at once those that were kept."""
    only(request.GET, ())
    endpoint = _endpoint(request, name)
    bodies.stop(endpoint, by=key_of(request))
    return _sampling(endpoint)


def _sampling(endpoint: Endpoint) -> BodiesOut:
    found = BodySampling.objects.filter(endpoint=endpoint).first()
    if found is None:
        return BodiesOut(kept=False, one_in=None, patterns=[])
    return BodiesOut(kept=True, one_in=found.one_in, patterns=found.patterns)


def _endpoint(request: HttpRequest, name: str) -> Endpoint:
    found = Endpoint.objects.living().filter(project=key_of(request).project, name=name).first()
    if found is None:
        raise Http404(f"There is no endpoint “{name}” in this project.")
    return found


def _after(rows: QuerySet[RequestRecord], cursor: UUID) -> QuerySet[RequestRecord]:
    last = RequestRecord.objects.filter(pk=cursor).values_list("at", flat=True).first()
    if last is None:
        raise Problem(422, "invalid", "This cursor leads nowhere any more.", {"cursor": ["Begin without one."]})
    return rows.filter(Q(at__lt=last) | Q(at=last, pk__lt=cursor))


def _unknown(field: str, known: list[str]) -> Problem:
    return Problem(422, "invalid", f"This {field} is not known.", {field: [f"One of {', '.join(known)}."]})


def _shown(record: RequestRecord) -> RequestOut:
    return RequestOut(
        id=record.pk,
        request_id=record.request_id,
        ended_at=record.at,
        remembered_as=[kept.value for kept in passports.reasons(record)],
        method=record.method,
        path=record.path,
        status=record.status,
        code=record.code or None,
        revision=record.revision.number if record.revision else None,
        key=record.key.prefix if record.key else None,
        instance=record.instance or None,
        stream=record.stream,
        cold_start=record.cold_start,
        queue_ms=record.queue_ms,
        connect_ms=record.connect_ms,
        first_byte_ms=record.first_byte_ms,
        ttft_ms=record.ttft_ms,
        total_ms=record.total_ms,
        parts=[PartOut(name=part.name, ms=part.ms) for part in passports.parts(record)],
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        estimated=record.estimated,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        cost_basis=record.cost_basis or None,
    )
