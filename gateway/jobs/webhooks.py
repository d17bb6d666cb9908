"""Telling webhooks of results, as Standard Webhooks has it: signed, retried for a day, the same id on each try.

2xx is delivered, 410 (Gone) and a forbidden address end it, and whatever else happens is tried again: network
errors, 408, 429 and 5xx pass by themselves, and other statuses, redirects among them, when somebody mends the
receiver. Redirects are reported and never followed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
from django.conf import settings
from django.db import transaction
from django.db.models import F, Window
from django.db.models.functions import Now, RowNumber
from django.utils import timezone
from standardwebhooks import Webhook

from gateway.jobs import address, shapes
from gateway.jobs.models import AsyncRequest, Delivery, Told, WebhookSecret

log = logging.getLogger(__name__)

# Seconds between tries: 23 hours in all, so that the last one comes before a result of 24 hours has gone.
SCHEDULE = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 33_000)
MOST_SPREAD = 600.0
TRY_SECONDS = 15.0  # for one try, name look-up and all
LEASE = timedelta(seconds=60)
READ_BYTES = 64 * 1024  # of an answer that nobody keeps
AT_ONCE = 200
GONE = 410


@dataclass(frozen=True)
class Tried:
    """How one try went. `final`: it is no use to try again. `after` is the receiver's own wish, in seconds."""

    status: int | None
    error: str = ""
    final: bool = False
    after: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def due() -> list[int]:
    """Whom to tell now: one of each project, by lot, before the next of any, so that no project's receivers that
    hang hold up another's results."""
    turn = Window(RowNumber(), partition_by="project_id", order_by="next_try_at")
    rows = AsyncRequest.objects.filter(told=Told.WAITING, next_try_at__lte=Now()).annotate(turn=turn)
    return list(rows.order_by("turn", "?").values_list("pk", flat=True)[:AT_ONCE])


def deliver(pk: int) -> bool:
    """Try once, if it is due and nobody else is at it; whether this call did.

    Whoever moves the time of the next try has the turn; one that dies loses it when that time comes.
    """
    turn = AsyncRequest.objects.filter(pk=pk, told=Told.WAITING, next_try_at__lte=Now())
    if not turn.update(next_try_at=Now() + LEASE):
        return False
    request = AsyncRequest.objects.select_related("endpoint", "project").get(pk=pk)
    began = time.monotonic()
    tried = EXPIRED if request.expired else send_now(request)
    _note(request, tried, time.monotonic() - began)
    return True


def send_now(request: AsyncRequest) -> Tried:
    """One try, with whatever can go wrong as its outcome."""
    opened = request.opened(request.webhook)
    if opened is None:
        return UNREADABLE
    body = shapes.event(request, request.endpoint.name)
    return asyncio.run(_bounded(httpx.URL(opened.decode()), body, signed(request, body, at=timezone.now())))


def signed(request: AsyncRequest, body: bytes, *, at: datetime) -> dict[str, str]:
    """The headers of a try: by each secret that is valid, so that a receiver may know either."""
    secrets = WebhookSecret.valid(request.project, at=at)
    signatures = [Webhook(secret).sign(request.request_id, at, body.decode()) for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": "tir-webhooks/1",
        "webhook-id": request.request_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def _bounded(url: httpx.URL, body: bytes, headers: dict[str, str]) -> Tried:
    try:
        async with asyncio.timeout(TRY_SECONDS):
            return await send(url, body, headers)
    except TimeoutError:
        return Tried(None, f"It did not answer within {TRY_SECONDS:g} s.")
    except Exception:
        log.exception("A webhook could not be told")  # counts as a try, so that it ends
        return Tried(None, "The console failed at it; its log says why.")


async def send(url: httpx.URL, body: bytes, headers: dict[str, str]) -> Tried:
    """Post it to the first of the host's addresses that takes a connection; each was looked at before."""
    try:
        places = await address.resolved(url, private=settings.WEBHOOK_ALLOW_PRIVATE)
    except address.Refused as refused:
        return Tried(None, str(refused), final=True)
    except address.Unresolved as problem:
        return Tried(None, str(problem))
    tried = Tried(None, "The name has no address.")
    async with httpx.AsyncClient(
        verify=trust() if url.scheme == "https" else False,  # loading certificates takes a while
        trust_env=False,
        timeout=TRY_SECONDS,
        follow_redirects=False,
    ) as client:
        for place in places:
            try:
                return await _post(client, url, place, body, headers)
            except httpx.ConnectError as problem:
                tried = Tried(None, f"No connection to {place}: {problem}"[:300])
            except (httpx.HTTPError, ssl.SSLError) as problem:
                return Tried(None, f"{type(problem).__name__}: {problem}"[:300])
    return tried


def trust() -> ssl.SSLContext:
    """Whose certificates are believed."""
    return httpx.create_ssl_context()


async def _post(
    client: httpx.AsyncClient, url: httpx.URL, place: str, body: bytes, headers: dict[str, str]
) -> Tried:
    """Connect to this very address; the certificate must still be the name's."""
    host = url.netloc.decode("ascii")
    extensions = {"sni_hostname": url.raw_host.decode("ascii")} if url.scheme == "https" else {}
    request = client.build_request(
        "POST", url.copy_with(host=place), content=body, headers={**headers, "host": host}, extensions=extensions
    )
    answer = await client.send(request, stream=True)
    try:
        await _read_a_little(answer)
    finally:
        await answer.aclose()
    return outcome(answer.status_code, answer.headers.get("location", ""), answer.headers.get("retry-after", ""))


async def _read_a_little(answer: httpx.Response) -> None:
    size = 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > READ_BYTES:
            return


def outcome(status: int, location: str, retry_after: str) -> Tried:
    """What a status means."""
    if 200 <= status < 300:
        return Tried(status)
    if status == GONE:
        return Tried(status, "The receiver answered 410, Gone: it wants no more of these.", final=True)
    after = float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 0.0
    if 300 <= status < 400:
        where = f" to {httpx.URL(location).copy_with(query=None)}" if _is_url(location) else ""
        return Tried(status, f"The receiver redirects{where}; redirects are not followed."[:300])
    return Tried(status, f"The receiver answered {status}.", after=after)


def _is_url(text: str) -> bool:
    try:
        return bool(text) and len(text) < 200 and bool(httpx.URL(text))
    except (httpx.InvalidURL, ValueError):
        return False


@transaction.atomic
def _note(request: AsyncRequest, tried: Tried, seconds: float) -> None:
    """Write the try down and what follows from it."""
    Delivery.objects.create(
        request=request, seconds=seconds, status=tried.status, error=tried.error, by=request.asked_by
    )
    told, wait = Told.WAITING, pause(request.tries, after=tried.after)
    if tried.ok:
        told = Told.DELIVERED
    elif tried.final or wait is None:
        told = Told.GIVEN_UP
    later = None if told != Told.WAITING else Now() + timedelta(seconds=wait or 0)
    mine = AsyncRequest.objects.filter(pk=request.pk, told=Told.WAITING)
    mine.update(told=told, tries=F("tries") + 1, next_try_at=later, asked_by="")


def pause(tries: int, *, after: float = 0.0) -> float | None:
    """Seconds until the next try after `tries` + 1 of them; None after the last."""
    if tries >= len(SCHEDULE):
        return None
    seconds = SCHEDULE[tries]
    spread = min(0.2 * seconds, MOST_SPREAD)
    return max(after, seconds + random.uniform(-spread, spread))  # noqa: S311 (a spread, not a secret)


EXPIRED = Tried(None, "The result expired before it could be delivered.", final=True)
UNREADABLE = Tried(None, "The webhook's address can't be decrypted: the encryption keys have changed.", final=True)
