"""The door by which machines that don't share this one's disk fetch the files of a registered model version."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_safe

from endpoints.file_pass import file_for
from endpoints.sources import SourceProblem

PIECE = 1 << 18
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@login_not_required  # the token is what counts
@require_safe
async def model_file(request: HttpRequest, path: str) -> HttpResponseBase:
    """One file of the version that the token's revision names; a range of it if that was asked for."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    try:
        found = await sync_to_async(file_for)(token, path)
    except SourceProblem as problem:
        raise Http404(str(problem)) from None
    if found is None:
        answer = JsonResponse({"error": "This needs the token of an endpoint's instances."}, status=401)
        answer["WWW-Authenticate"] = "Bearer"
        return answer
    size = found.stat().st_size
    asked = RANGE.fullmatch(request.headers.get("Range", ""))
    first = int(asked[1]) if asked else 0
    last = min(int(asked[2]), size - 1) if asked and asked[2] else size - 1
    if asked and first > last:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Content-Length": str(last + 1 - first), "Accept-Ranges": "bytes", "Cache-Control": "private"}
    if asked:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    if request.method == "HEAD":
        return HttpResponse(headers=headers, content_type="application/octet-stream")
    pieces = _pieces(found, first, last + 1 - first)
    content = _beside(pieces) if isinstance(request, ASGIRequest) else pieces
    status = 206 if asked else 200
    return StreamingHttpResponse(content, status=status, headers=headers, content_type="application/octet-stream")


def _pieces(path: Path, first: int, size: int) -> Iterator[bytes]:
    """A file cut shorter than was said ends early: whoever fetches notices, and asks for the rest."""
    with path.open("rb") as file:
        file.seek(first)
        while size > 0 and (piece := file.read(min(PIECE, size))):
            size -= len(piece)
            yield piece


async def _beside(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Read in a thread: a sync iterator would be taken into memory whole before its first byte is sent."""
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
