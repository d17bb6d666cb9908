"""What every REST route shares: the key that opens it, and problems as programs are told them.

A problem is always `{"error": {"code", "message", "fields": {field: [text, …]}}}`; `code` is stable.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from django.http import HttpRequest, QueryDict, UnreadablePostError
from django.utils import timezone
from ninja import Schema
from ninja.security import HttpBearer

from accounts.models import ApiKey, Scope

LARGEST_BODY = 1 << 20


class Problem(Exception):
    """Why a call can't be answered as it was meant."""

    def __init__(
        self, status: int, code: str, message: str, fields: Mapping[str, Collection[str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.fields = {name: list(texts) for name, texts in (fields or {}).items()}

    def as_json(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "fields": self.fields}}


class ErrorDetail(Schema):
    code: str
    message: str
    fields: dict[str, list[str]]


class Error(Schema):
    """The shape of every problem, for the documentation."""

    error: ErrorDetail


class Key(HttpBearer):
    """An API key with a scope; the call acts in the key's project."""

    scope: Scope

    def authenticate(self, request: HttpRequest, token: str) -> ApiKey:
        now = timezone.now()
        key = ApiKey.objects.matching(token, now)
        if key is None:
            raise Problem(401, "bad_key", "This API key is unknown, revoked or expired.")
        if self.scope not in key.scopes:
            may = {Scope.MANAGE: "manage", Scope.INFERENCE: "call endpoints"}[self.scope]
            missing = f"This API key may not {may}. Make one with the scope “{self.scope}”."
            raise Problem(403, "scope_missing", missing)
        key.used(at=now)
        return key


class ManageKey(Key):
    scope = Scope.MANAGE


class CallKey(Key):
    scope = Scope.INFERENCE


def key_of(request: HttpRequest) -> ApiKey:
    """The key that opened this route."""
    key = getattr(request, "auth", None)
    if not isinstance(key, ApiKey):
        raise Problem(401, "no_key", "Send an API key: Authorization: Bearer tir_…")
    return key


def body_of(request: HttpRequest) -> Any:
    """The JSON that was sent; {} for nothing. Raises Problem for what is too large or is no JSON."""
    if int(request.META.get("CONTENT_LENGTH") or 0) > LARGEST_BODY:
        raise Problem(413, "too_large", f"The body has more than {LARGEST_BODY:,} bytes.")
    try:
        raw = request.body
    except UnreadablePostError:
        raise Problem(400, "unreadable", "The body ended early. Send it again.") from None
    if not raw.strip():
        return {}
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise Problem(400, "invalid_json", f"The body is not JSON: {problem}") from None


def only(given: QueryDict, known: Collection[str]) -> None:
    """Unknown parameters are refused: a mistyped filter must not answer with everything."""
    unknown = {name: [f"There is no such parameter. Known here: {', '.join(known)}."] for name in given}
    unknown = {name: texts for name, texts in unknown.items() if name not in known}
    if unknown:
        raise Problem(422, "unknown_parameter", "Some parameters are not known.", unknown)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
