"""The REST API's root: routes, one OpenAPI document at /api/docs, and one shape for every problem."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI, Router
from ninja.errors import HttpError, ValidationError

from accounts.api import router as access
from accounts.keys_api import router as keys
from accounts.refused import Refused
from accounts.rest import Problem
from endpoints.api import SPEC_SCHEMA
from endpoints.api import router as endpoints
from endpoints.imports_api import router as imports
from endpoints.models_api import router as models
from endpoints.validation import Invalid
from gateway.jobs.api import router as jobs
from monitoring.api import router as logs
from monitoring.passports_api import router as requests
from tir_console.api_document import DESCRIPTION, with_spec

log = logging.getLogger(__name__)

CONFLICTS = {"name_taken"}  # the name is well-formed; somebody has it
BAD_REQUESTS = {"bad_idempotency_key"}
WORDS = {"extra_forbidden": "There is no such field.", "missing": "This field is required."}
CODES = {400: "bad_request", 401: "no_key", 403: "not_allowed", 404: "not_found", 405: "method_not_allowed"}


class Api(NinjaAPI):
    def get_openapi_schema(self, **options: Any) -> Any:
        return with_spec(super().get_openapi_schema(**options), SPEC_SCHEMA)


api = Api(title="TIR console", version="1", description=DESCRIPTION, urls_namespace="api", docs_url="/docs")
api.add_router("/v1", endpoints)
api.add_router("/v1", models)
api.add_router("/v1", imports)
api.add_router("/v1", logs)
api.add_router("/v1", jobs)
api.add_router("/v1", requests)
api.add_router("/v1", access)
api.add_router("/v1", keys)


def answer(request: HttpRequest, problem: Problem) -> HttpResponse:
    response = api.create_response(request, problem.as_json(), status=problem.status)
    if problem.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(Problem)
def _problem(request: HttpRequest, problem: Problem) -> HttpResponse:
    return answer(request, problem)


@api.exception_handler(Invalid)
def _invalid(request: HttpRequest, invalid: Invalid) -> HttpResponse:
    return answer(request, Problem(422, "invalid", "The endpoint can't be made like this.", invalid.errors))


@api.exception_handler(Refused)
def _refused(request: HttpRequest, refused: Refused) -> HttpResponse:
    status = 422 if refused.field and refused.code not in CONFLICTS else 409
    status = 400 if refused.code in BAD_REQUESTS else status
    fields = {refused.field: [str(refused)]} if refused.field else {}
    return answer(request, Problem(status, refused.code, str(refused), fields))


@api.exception_handler(ValidationError)
def _parameters(request: HttpRequest, invalid: ValidationError) -> HttpResponse:
    fields: dict[str, list[str]] = {}
    for error in invalid.errors:
        where, *place = [str(part) for part in error["loc"]]
        field = ".".join(place[1:] if where == "body" else place)  # the body's own name is only ours
        fields.setdefault(field, []).append(WORDS.get(error["type"]) or str(error["msg"]))
    return answer(request, Problem(422, "invalid", "Some fields are wrong.", fields))


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    message = str(error)
    if error.status_code == 401:
        message = "Send an API key: Authorization: Bearer tir_…"
    if error.status_code == 400 and "parse request body" in message:
        return answer(request, Problem(400, "invalid_json", f"The body is not JSON. {message}"))
    code = CODES.get(error.status_code, "error")
    return answer(request, Problem(error.status_code, code, message))


@api.exception_handler(Http404)
def _missing(request: HttpRequest, missing: Http404) -> HttpResponse:
    return answer(request, Problem(404, "not_found", str(missing) or "There is nothing at this address."))


@api.exception_handler(RequestDataTooBig)
def _too_large(request: HttpRequest, problem: RequestDataTooBig) -> HttpResponse:
    return answer(request, Problem(413, "too_large", "The body is too large."))


@api.exception_handler(Exception)
def _broken(request: HttpRequest, problem: Exception) -> HttpResponse:
    log.exception("%s %s broke", request.method, request.path, exc_info=problem)
    return answer(request, Problem(500, "broken", "Something broke on our side. The console's log has the cause."))


nowhere = Router()


@nowhere.api_operation(["GET", "POST", "PUT", "PATCH", "DELETE"], "/{path:rest}", include_in_schema=False)
def elsewhere(request: HttpRequest, rest: str) -> HttpResponse:
    return answer(request, Problem(404, "not_found", "There is nothing at this address; see /api/docs."))


api.add_router("/v1", nowhere)  # last: it takes what no other took


def _opened(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Keys open these routes, not sessions; and a wrong method is told in the same shape as all else."""

    @csrf_exempt
    @login_not_required
    @wraps(view)
    def opened(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        if isinstance(response, HttpResponseNotAllowed):
            allowed = response["Allow"]
            response = answer(
                request, Problem(405, CODES[405], f"{request.method} is not for this address: {allowed}.")
            )
            response["Allow"] = allowed
        return response

    return opened


urls = api.urls
for _pattern in urls[0]:
    if _pattern.callback is not None:
        _pattern.callback = _opened(_pattern.callback)
