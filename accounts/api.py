"""The REST API of access: short-lived tokens for whoever holds a key, and service accounts for whoever manages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest
from django.utils import timezone
from ninja import Router
from ninja.params.functions import Query
from ninja.responses import Status as Answer

from accounts import tokens
from accounts.api_shapes import (
    AccountIn,
    AccountOut,
    AccountsOut,
    AllowanceIn,
    CredentialOut,
    MadeOut,
    RotateIn,
    TokenIn,
    TokenOut,
    shown,
)
from accounts.models import ApiKey, ServiceAccount
from accounts.rest import CallKey, Error, ManageKey, key_of, only

router = Router(auth=ManageKey(), tags=["Service accounts"])
PROBLEMS: dict[Any, Any] = {frozenset({400, 401, 403, 404, 409, 413, 422}): Error}
LARGEST_PAGE = 200


@router.post("/tokens", auth=CallKey(), tags=["Tokens"], response={201: TokenOut} | PROBLEMS)
def issue_token(request: HttpRequest, body: TokenIn) -> Answer[Any]:
    """A signed token that calls what this key may call, for 1 to 60 minutes and no longer than the key lives.

    Give it to a program that must not hold the key. Its calls count for the key, and revoking the key ends it.
    `/.well-known/jwks.json` has the public keys.
    """
    lifetime = timedelta(seconds=body.expires_in)
    issued = tokens.for_key(key_of(request), at=timezone.now(), lifetime=lifetime, endpoints=body.endpoints)
    return Answer(201, TokenOut(token=issued.token, expires_in=issued.lives, expires_at=issued.expires_at))


@router.get("/service-accounts", response={200: AccountsOut} | PROBLEMS)
def list_service_accounts(
    request: HttpRequest,
    page: int = Query(1, ge=1, le=100_000),
    limit: int = Query(50, ge=1, le=LARGEST_PAGE),
) -> AccountsOut:
    """The project's service accounts by name, with what they may and their credentials; no secret is shown."""
    only(request.GET, ("page", "limit"))
    found = Paginator(_accounts(request), limit)
    rows = list(found.page(page).object_list) if page <= found.num_pages else []
    items = shown(key_of(request).project, rows)
    return AccountsOut(items=items, total=found.count, page=page, pages=found.num_pages)


@router.post("/service-accounts", response={201: MadeOut} | PROBLEMS)
def create_service_account(request: HttpRequest, body: AccountIn) -> Answer[Any]:
    """Make an account and its first credential, whose secret is in this answer and never again."""
    key = key_of(request)
    account, made, secret = ServiceAccount.open(
        key.project,
        name=body.name,
        description=body.description,
        endpoint_ids=body.endpoint_ids(key.project),
        limits=body.limits(),
        expires_at=body.expires_at(timezone.now()),
        by=key,
    )
    return Answer(201, _made(request, account.name, made, secret))


@router.get("/service-accounts/{name}", response={200: AccountOut} | PROBLEMS)
def get_service_account(request: HttpRequest, name: str) -> AccountOut:
    return _answer(request, name)


@router.patch("/service-accounts/{name}", response={200: AccountOut} | PROBLEMS)
def update_service_account(request: HttpRequest, name: str, body: AllowanceIn) -> AccountOut:
    """Change what it may, for all of its credentials within two seconds; what is left out stays as it is."""
    key = key_of(request)
    _account(request, name).change(body.changes(key.project), by=key)
    return _answer(request, name)


@router.delete("/service-accounts/{name}", response={204: None} | PROBLEMS)
def delete_service_account(request: HttpRequest, name: str) -> Answer[Any]:
    """Delete it; its credentials are refused from now on."""
    _account(request, name).discard(at=timezone.now(), by=key_of(request))
    return Answer(204, None)


@router.post("/service-accounts/{name}/rotate", response={201: MadeOut} | PROBLEMS)
def rotate_service_account(request: HttpRequest, name: str, body: RotateIn) -> Answer[Any]:
    """Make a new credential. The others work `old_works_for` seconds more: a day, if nothing is said."""
    now = timezone.now()
    made, secret = _account(request, name).rotate(
        at=now, old_until=body.old_until(now), expires_at=body.expires_at(now), by=key_of(request)
    )
    return Answer(201, _made(request, name, made, secret))


@router.post("/service-accounts/{name}/disable", response={200: AccountOut} | PROBLEMS)
def disable_service_account(request: HttpRequest, name: str) -> AccountOut:
    """Refuse all of its credentials until it is enabled."""
    _account(request, name).disable(at=timezone.now(), by=key_of(request))
    return _answer(request, name)


@router.post("/service-accounts/{name}/enable", response={200: AccountOut} | PROBLEMS)
def enable_service_account(request: HttpRequest, name: str) -> AccountOut:
    _account(request, name).enable(by=key_of(request))
    return _answer(request, name)


@router.delete("/service-accounts/{name}/credentials/{credential}", response={200: AccountOut} | PROBLEMS)
def revoke_credential(request: HttpRequest, name: str, credential: int) -> AccountOut:
    """Refuse this one credential from now on."""
    found = _account(request, name).credentials.filter(pk=credential).first()
    if found is None:
        raise Http404(f"The service account “{name}” has no credential {credential}.")
    found.revoke(at=timezone.now(), by=key_of(request))
    return _answer(request, name)


def _accounts(request: HttpRequest) -> QuerySet[ServiceAccount]:
    credentials = Prefetch("credentials", ApiKey.objects.order_by("-created_at", "-pk"))
    return key_of(request).project.service_accounts.prefetch_related(credentials).order_by("name")


def _account(request: HttpRequest, name: str) -> ServiceAccount:
    found = _accounts(request).filter(name=name).first()
    if found is None:
        raise Http404(f"There is no service account “{name}” in this project.")
    return found


def _answer(request: HttpRequest, name: str) -> AccountOut:
    return shown(key_of(request).project, [_account(request, name)])[0]


def _made(request: HttpRequest, name: str, credential: ApiKey, secret: str) -> MadeOut:
    return MadeOut(account=_answer(request, name), credential=CredentialOut.from_orm(credential), secret=secret)
