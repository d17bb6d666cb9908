"""The REST API of asynchronous requests: the page's rows and verbs. Submitting is the gateway's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import Http404, HttpRequest
from django.utils import timezone
from ninja import Router, Schema
from ninja.params.functions import Query
from ninja.responses import Status as Answer
from pydantic import ConfigDict

from accounts.rest import Error, ManageKey, Problem, key_of, only
from gateway.jobs.models import AsyncRequest, Delivery, State, WebhookSecret

router = Router(auth=ManageKey(), tags=["Asynchronous requests"])
PROBLEMS: dict[Any, Any] = {frozenset({401, 403, 404, 409, 422}): Error}
SAME = ["request_id", "path", "state", "created_at", "started_at", "finished_at", "expires_at", "attempts"]
SAME += ["status", "error_code", "prompt_tokens", "completion_tokens", "tries", "next_try_at"]
LARGEST_PAGE = 200
LARGEST_ID = 2**63 - 1


class AsyncRequestOut(Schema):
    """`webhook` is none, later (after the result), waiting (being delivered), delivered or failed."""

    request_id: str
    endpoint: str
    path: str
    state: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    attempts: int
    status: int | None
    error_code: str
    request_bytes: int
    result_bytes: int
    prompt_tokens: int
    completion_tokens: int
    webhook: str
    tries: int
    next_try_at: datetime | None


class AsyncRequestsOut(Schema):
    items: list[AsyncRequestOut]
    next_cursor: int | None


class DeliveryOut(Schema):
    at: datetime
    seconds: float
    status: int | None
    error: str
    by: str


class AsyncRequestDetailOut(AsyncRequestOut):
    deliveries: list[DeliveryOut]


class SecretOut(Schema):
    """`id` is null before the first one. `previous_until`: how long the one before signs beside it."""

    id: int | None
    created_at: datetime | None
    previous_until: datetime | None


class NewSecretOut(SecretOut):
    secret: str


class RotateIn(Schema):
    """`replacing` is the id of the secret that is seen as current, null for none."""

    model_config = ConfigDict(extra="forbid")
    replacing: int | None = None


@router.get("/async-requests", response={200: AsyncRequestsOut} | PROBLEMS)
def list_async_requests(
    request: HttpRequest,
    endpoint: str = "",
    state: str = "",
    cursor: int | None = Query(None, ge=1, le=LARGEST_ID),
    limit: int = Query(50, ge=1, le=LARGEST_PAGE),
) -> AsyncRequestsOut:
    """Newest first; `cursor` is the `next_cursor` of the page before, null at the end."""
    only(request.GET, ("endpoint", "state", "cursor", "limit"))
    endpoint = endpoint.replace("\0", "")
    if state and state not in State.values:
        known = f"One of {', '.join(State.values)}."
        raise Problem(422, "invalid", "This state is not known.", {"state": [known]})
    rows = key_of(request).project.async_requests.light().select_related("endpoint")
    rows = rows.filter(endpoint__name=endpoint) if endpoint else rows
    rows = rows.filter(state=state) if state else rows
    older = list((rows.filter(id__lt=cursor) if cursor else rows)[: limit + 1])
    following = older[limit - 1].pk if len(older) > limit else None
    return AsyncRequestsOut(items=[AsyncRequestOut(**_shown(one)) for one in older[:limit]], next_cursor=following)


@router.get("/async-requests/{request_id}", response={200: AsyncRequestDetailOut} | PROBLEMS)
def get_async_request(request: HttpRequest, request_id: str) -> AsyncRequestDetailOut:
    return _detail(_of(request, request_id))


@router.post("/async-requests/{request_id}/cancel", response={200: AsyncRequestDetailOut} | PROBLEMS)
def cancel_async_request(request: HttpRequest, request_id: str) -> AsyncRequestDetailOut:
    """End it before or while it runs; one that is over already is a conflict."""
    one = _of(request, request_id)
    if not one.cancel(by=str(key_of(request))) and one.state != State.CANCELLED:
        raise Problem(409, "already_finished", f"It has {one.state} already.")
    return _detail(one)


@router.post("/async-requests/{request_id}/redeliver", response={200: AsyncRequestDetailOut} | PROBLEMS)
def redeliver_async_request(request: HttpRequest, request_id: str) -> AsyncRequestDetailOut:
    """Tell its webhook once more, under the same webhook-id."""
    one = _of(request, request_id)
    one.redeliver(by=str(key_of(request)))
    return _detail(one)


@router.get("/webhook-secret", response={200: SecretOut} | PROBLEMS)
def get_webhook_secret(request: HttpRequest) -> SecretOut:
    """When the project's secret was made, never what it is."""
    only(request.GET, ())
    return SecretOut(**_secret(request))


@router.post("/webhook-secret/rotate", response={201: NewSecretOut} | PROBLEMS)
def rotate_webhook_secret(request: HttpRequest, body: RotateIn) -> Answer[Any]:
    """Make a new one, shown only here. The one before signs beside it for 24 hours."""
    key = key_of(request)
    _, value = WebhookSecret.rotate(key.project, replacing=body.replacing, by=key)
    return Answer(201, NewSecretOut(**_secret(request), secret=value))


def _of(request: HttpRequest, request_id: str) -> AsyncRequest:
    """Of the key's project; another project's is as good as not there."""
    rows = key_of(request).project.async_requests.light().select_related("endpoint")
    found = rows.filter(request_id=request_id).first() if request_id.isprintable() else None
    if found is None:
        raise Http404(f"There is no request “{request_id}” in this project.")
    return found


def _shown(one: AsyncRequest) -> dict[str, Any]:
    shown = {name: getattr(one, name) for name in SAME} | {"endpoint": one.endpoint.name, "webhook": one.told}
    return shown | {"request_bytes": one.body_bytes, "result_bytes": one.answer_bytes}


def _detail(one: AsyncRequest) -> AsyncRequestDetailOut:
    tries: list[Delivery] = list(one.deliveries.all()[:100])
    return AsyncRequestDetailOut(**_shown(one), deliveries=[DeliveryOut.from_orm(each) for each in tries])


def _secret(request: HttpRequest) -> dict[str, Any]:
    project = key_of(request).project
    current = WebhookSecret.current(project)
    retiring = project.webhook_secrets.filter(retires_at__gt=timezone.now()).first()
    return {
        "id": current.pk if current else None,
        "created_at": current.created_at if current else None,
        "previous_until": retiring.retires_at if retiring else None,
    }
