"""The REST API of endpoints: the wizard's specification as JSON, and the same verbs and refusals as the pages."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from ninja import Router
from ninja.params.functions import Query
from ninja.responses import Status as Answer
from pydantic import TypeAdapter

from accounts.rest import Error, ManageKey, Problem, body_of, key_of, only
from endpoints.api_shapes import (
    AdmissionIn,
    AdmissionOut,
    EmergencyIn,
    EndpointOut,
    EndpointsOut,
    EventOut,
    EventsOut,
    ScaleIn,
    ScalingIn,
    counted,
    shown,
)
from endpoints.idempotency import once
from endpoints.models import Endpoint
from endpoints.pages import listing
from endpoints.spec import Spec
from endpoints.status import Status
from endpoints.validation import spec_from

router = Router(auth=ManageKey(), tags=["Endpoints"])
PROBLEMS: dict[Any, Any] = {frozenset({400, 401, 403, 404, 409, 413, 422}): Error}
LARGEST_PAGE = 200
LARGEST_ID = 2**63 - 1
# Only for the documentation: the body is judged by the wizard's own forms, so that both say the same.
SPEC_BODY = {"requestBody": {"required": True, "content": {"application/json": {}}}}
SPEC_SCHEMA = TypeAdapter(Spec).json_schema(ref_template="#/components/schemas/{model}")


@router.post("/endpoints", response={201: EndpointOut, 200: EndpointOut} | PROBLEMS, openapi_extra=SPEC_BODY)
def create_endpoint(request: HttpRequest, response: HttpResponse) -> Answer[Any]:
    """Create an endpoint and deploy it.

    With an `Idempotency-Key` header, the same call sent again answers 200 with the endpoint that the first made.
    """
    key, body = key_of(request), body_of(request)

    def check() -> Spec:
        return spec_from(body, key.project, user=key.created_by)

    def launch(spec: Spec) -> Endpoint:
        return Endpoint.launch(key.project, spec, by=key)

    repeatable = request.headers.get("Idempotency-Key", "")
    if repeatable:
        endpoint, made = once(key.project, repeatable, body, check=check, launch=launch)
    else:
        endpoint, made = launch(check()), True
    response["Location"] = f"{request.path}/{endpoint.name}"
    return Answer(201 if made else 200, _answer(endpoint))


@router.get("/endpoints", response={200: EndpointsOut} | PROBLEMS)
def list_endpoints(
    request: HttpRequest,
    status: str = "",
    q: str = "",
    page: int = Query(1, ge=1, le=100_000),
    limit: int = Query(50, ge=1, le=LARGEST_PAGE),
) -> EndpointsOut:
    """The project's endpoints by name; `status` and `q` (part of the name or model) narrow them."""
    only(request.GET, ("status", "q", "page", "limit"))
    if status and status not in Status.values:
        raise Problem(
            422, "invalid", "This status is not known.", {"status": [f"One of {', '.join(Status.values)}."]}
        )
    rows = listing(key_of(request).project.endpoints.living(), query=q, status=status)
    found = Paginator(rows.values_list("pk", flat=True), limit)
    numbers = list(found.page(page).object_list) if page <= found.num_pages else []
    items = shown(list(counted(Endpoint.objects.filter(pk__in=numbers)).order_by("name")))
    return EndpointsOut(items=items, total=found.count, page=page, pages=found.num_pages)


@router.get("/endpoints/{name}", response={200: EndpointOut} | PROBLEMS)
def get_endpoint(request: HttpRequest, name: str) -> EndpointOut:
    return _answer(_endpoint(request, name))


@router.delete("/endpoints/{name}", response={202: EndpointOut} | PROBLEMS)
def delete_endpoint(request: HttpRequest, name: str) -> Answer[Any]:
    """End everything and free the name; instances drain first, hence 202."""
    endpoint = _endpoint(request, name)
    endpoint.delete_endpoint(by=key_of(request))
    return Answer(202, _answer(endpoint))


@router.post("/endpoints/{name}/scale", response={200: EndpointOut} | PROBLEMS)
def scale_endpoint(request: HttpRequest, name: str, body: ScaleIn) -> EndpointOut:
    endpoint = _endpoint(request, name)
    endpoint.scale(body.instances, by=key_of(request))
    return _answer(endpoint)


@router.patch("/endpoints/{name}/scaling", response={200: EndpointOut} | PROBLEMS)
def update_scaling(request: HttpRequest, name: str, body: ScalingIn) -> EndpointOut:
    """Change the scaling policy at once and without a deployment; what is left out stays as it is."""
    endpoint = _endpoint(request, name)
    endpoint.update_scaling(by=key_of(request), **body.dict(exclude_none=True))
    return _answer(endpoint)


@router.post("/endpoints/{name}/emergency-scale", response={200: EndpointOut} | PROBLEMS)
def emergency_scale(request: HttpRequest, name: str, body: EmergencyIn) -> EndpointOut:
    """Want so many at once, and keep automatic scaling from taking any back for the minutes given."""
    endpoint = _endpoint(request, name)
    endpoint.emergency_scale(body.instances, minutes=body.minutes, by=key_of(request))
    return _answer(endpoint)


@router.delete("/endpoints/{name}/emergency-scale", response={200: EndpointOut} | PROBLEMS)
def end_emergency(request: HttpRequest, name: str) -> EndpointOut:
    """Let automatic scaling take instances back again; without an emergency, nothing changes."""
    endpoint = _endpoint(request, name)
    endpoint.end_emergency(by=key_of(request))
    return _answer(endpoint)


@router.get("/endpoints/{name}/admission", response={200: AdmissionOut} | PROBLEMS)
def get_admission(request: HttpRequest, name: str) -> AdmissionOut:
    """The endpoint's traffic rules: limits of all its callers together, its queue, browser origins."""
    return AdmissionOut.from_orm(_endpoint(request, name).rules)


@router.patch("/endpoints/{name}/admission", response={200: AdmissionOut} | PROBLEMS)
def update_admission(request: HttpRequest, name: str, body: AdmissionIn) -> AdmissionOut:
    """Change traffic rules within seconds and without a deployment; what is left out stays as it is."""
    endpoint = _endpoint(request, name)
    endpoint.update_admission(by=key_of(request), **body.dict(exclude_unset=True))
    return AdmissionOut.from_orm(endpoint.rules)


@router.post("/endpoints/{name}/stop", response={200: EndpointOut} | PROBLEMS)
def stop_endpoint(request: HttpRequest, name: str) -> EndpointOut:
    endpoint = _endpoint(request, name)
    endpoint.stop(by=key_of(request))
    return _answer(endpoint)


@router.post("/endpoints/{name}/start", response={200: EndpointOut} | PROBLEMS)
def start_endpoint(request: HttpRequest, name: str) -> EndpointOut:
    endpoint = _endpoint(request, name)
    endpoint.start(by=key_of(request))
    return _answer(endpoint)


@router.post("/endpoints/{name}/restart", response={200: EndpointOut} | PROBLEMS)
def restart_endpoint(request: HttpRequest, name: str) -> EndpointOut:
    endpoint = _endpoint(request, name)
    endpoint.restart(by=key_of(request))
    return _answer(endpoint)


@router.get("/endpoints/{name}/events", response={200: EventsOut} | PROBLEMS)
def list_events(
    request: HttpRequest,
    name: str,
    cursor: int | None = Query(None, ge=1, le=LARGEST_ID),
    limit: int = Query(50, ge=1, le=LARGEST_PAGE),
) -> EventsOut:
    """Newest first; `cursor` is the `next_cursor` of the page before, null at the end."""
    only(request.GET, ("cursor", "limit"))
    rows = _endpoint(request, name).events.select_related("actor", "actor_key").order_by("-id")
    older = list((rows.filter(id__lt=cursor) if cursor else rows)[: limit + 1])
    items = [EventOut.from_orm(event) for event in older[:limit]]
    return EventsOut(items=items, next_cursor=items[-1].id if len(older) > limit else None)


def _endpoint(request: HttpRequest, name: str) -> Endpoint:
    """Of the key's project; another project's is as good as not there."""
    found = key_of(request).project.endpoints.living().filter(name=name).first()
    if found is None:
        raise Http404(f"There is no endpoint “{name}” in this project.")
    return found


def _answer(endpoint: Endpoint) -> EndpointOut:
    return shown([counted(Endpoint.objects.all()).get(pk=endpoint.pk)])[0]
