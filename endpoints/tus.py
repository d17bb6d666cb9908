"""The tus protocol 1.0: uploads that go on after a cut. Core, creation, checksum, expiration and termination.

One door's view hands its request and what it names; the answer is the same for a browser's session and for a
program's key. Problems have the REST API's shape.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.http import http_date

from accounts.refused import Refused
from accounts.rest import Problem
from endpoints import receiving
from endpoints.models import Upload, VersionDraft
from endpoints.models.endpoint import By

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,checksum,expiration,termination"
CONTENT_TYPE: Final = "application/offset+octet-stream"
LARGEST: Final = 1 << 60  # bytes anybody may name
CONFLICTS: Final = frozenset({"name_taken", "too_many", "shared"})


def respond(request: HttpRequest, answer: Callable[[str], HttpResponse]) -> HttpResponse:
    """Run `answer` with the method that is meant, and put what the protocol wants around it."""
    method = (request.headers.get("X-HTTP-Method-Override") or request.method or "").upper()
    spoken = method == "OPTIONS" or request.headers.get("Tus-Resumable") == VERSION
    try:
        response = answer(method) if spoken else _other_version()
    except Problem as problem:
        response = _told(problem)
    except Refused as refused:
        fields = {refused.field: [str(refused)]} if refused.field else {}
        status = 409 if refused.code in CONFLICTS else 422
        response = _told(Problem(status, refused.code, str(refused), fields))
    except Http404 as missing:
        response = _told(Problem(404, "not_found", str(missing)))
    response["Tus-Resumable"] = VERSION
    response["Cache-Control"] = "no-store"
    return response


def _told(problem: Problem) -> HttpResponse:
    return JsonResponse(problem.as_json(), status=problem.status)


def _other_version() -> HttpResponse:
    response = _told(Problem(412, "wrong_version", f"Send the header Tus-Resumable: {VERSION}."))
    response["Tus-Version"] = VERSION
    return response


def collection(
    request: HttpRequest, method: str, draft: VersionDraft, *, by: By, address: Callable[[Upload], str]
) -> HttpResponse:
    """OPTIONS and POST at the address of a draft's uploads."""
    if method == "OPTIONS":
        return _abilities()
    if method != "POST":
        raise Problem(405, "method_not_allowed", f"{method} is not for this address: OPTIONS, POST.")
    size, about = _length(request, "Upload-Length"), _metadata(request)
    path, sha256 = about.get("path") or about.get("filename", ""), about.get("sha256", "").lower()
    if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise Problem(400, "bad_metadata", "sha256 in Upload-Metadata must be 64 hexadecimal digits.")
    upload = receiving.expect(draft, path, size, sha256=sha256, by=by, at=timezone.now())
    response = HttpResponse(status=201, headers={"Location": address(upload), **_expiry(upload)})
    response["Upload-Offset"] = str(receiving.offset_of(upload))
    return response


def one(request: HttpRequest, method: str, upload: Upload) -> HttpResponse:
    """OPTIONS, HEAD, PATCH and DELETE at an upload's own address."""
    if method == "OPTIONS":
        return _abilities()
    if method == "DELETE":
        receiving.remove(upload)
        return HttpResponse(status=204)
    if method == "HEAD":
        if not upload.sha256 and upload.expires_at <= timezone.now():
            raise Problem(410, "expired", "This upload was left too long. Begin it again.")
        sizes = {"Upload-Offset": str(receiving.offset_of(upload)), "Upload-Length": str(upload.size)}
        return HttpResponse(status=200, headers=sizes | _expiry(upload) | _digest(upload))
    if method != "PATCH":
        raise Problem(
            405, "method_not_allowed", f"{method} is not for this address: DELETE, HEAD, OPTIONS, PATCH."
        )
    if request.content_type != CONTENT_TYPE:
        raise Problem(415, "wrong_type", f"Send the bytes as Content-Type: {CONTENT_TYPE}.")
    upload = receiving.receive(
        upload,
        request,
        _length(request, "Content-Length"),
        offset=_length(request, "Upload-Offset"),
        sha256=_checksum(request),
        at=timezone.now(),
    )
    headers = {"Upload-Offset": str(upload.offset)} | _expiry(upload) | _digest(upload)
    return HttpResponse(status=204, headers=headers)


def _abilities() -> HttpResponse:
    headers = {"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Checksum-Algorithm": "sha256"}
    if settings.UPLOAD_MAX_BYTES:
        headers["Tus-Max-Size"] = str(settings.UPLOAD_MAX_BYTES)
    return HttpResponse(status=204, headers=headers)


def _expiry(upload: Upload) -> dict[str, str]:
    return {} if upload.sha256 else {"Upload-Expires": http_date(upload.expires_at.timestamp())}


def _digest(upload: Upload) -> dict[str, str]:
    """What a whole file came to, as RFC 9530 writes it."""
    if not upload.sha256:
        return {}
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(upload.sha256)).decode()}:"}


def _length(request: HttpRequest, name: str) -> int:
    text = request.headers.get(name, "")
    if not text.isascii() or not text.isdigit() or int(text[:20]) > LARGEST:
        raise Problem(400, "bad_header", f"The header {name} must be a number of bytes.")
    return int(text)


def _metadata(request: HttpRequest) -> Mapping[str, str]:
    found = {}
    for pair in request.headers.get("Upload-Metadata", "").split(","):
        key, _, value = pair.strip().partition(" ")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Problem(400, "bad_metadata", f"“{key[:40]}” in Upload-Metadata is no base64 of UTF-8.") from None
    return found


def _checksum(request: HttpRequest) -> bytes | None:
    said = request.headers.get("Upload-Checksum", "")
    if not said:
        return None
    algorithm, _, value = said.partition(" ")
    if algorithm != "sha256":
        raise Problem(400, "bad_checksum", "Upload-Checksum takes sha256.")
    try:
        digest = base64.b64decode(value, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise Problem(400, "bad_checksum", "Upload-Checksum must be sha256 and the digest in base64.")
    return digest
