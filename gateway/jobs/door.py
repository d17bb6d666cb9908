"""The addresses beneath /v1/async/: submit, look, cancel. The caller is known and may call the endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from django.conf import settings
from django.utils import timezone

from accounts.models import ApiKey
from accounts.refused import Refused
from gateway import errors
from gateway.admit import Admitted, allowed, stopped_text
from gateway.contract import Away
from gateway.core import Gateway
from gateway.errand import ASYNC
from gateway.errors import Headers, Refusal
from gateway.jobs import address, queue, shapes
from gateway.jobs.database import Database
from gateway.jobs.models import OPEN, AsyncRequest, State
from gateway.jobs.runner import PERSON, Runner, capacity
from gateway.rewrite import parsed

STATUS = "status/"
LONGEST_KEY = 200
LONGEST_QUEUE, LARGEST_QUEUE = 10_000, 2**30  # of one endpoint: requests, and bytes of their bodies
NO_STORE: Headers = ((b"cache-control", b"no-store"),)
AWAY = errors.not_ready(
    "The queue can't be reached right now. Send the request again.", code="queue_unavailable", retry_after=5
)
FULL = Refusal(
    429,
    "async_queue_full",
    f"The endpoint has {LONGEST_QUEUE:,} requests or {LARGEST_QUEUE >> 30} GiB queued, the most there may be.",
    type="rate_limit_error",
    headers=((b"retry-after", b"60"),),
)
STREAMED = errors.wrong_value("stream", "A queued request can't be streamed: leave 'stream' out.")
TAKEN = Refusal(
    409, "idempotency_key_reused", "This Idempotency-Key was used with another body.", type="conflict_error"
)
BAD_KEY = Refusal(
    400, "bad_idempotency_key", f"An Idempotency-Key has at most {LONGEST_KEY} printable characters."
)

Answered = tuple[int, Headers, bytes]


class DatabaseJobs:
    """A `gateway.contract.Jobs`: the queue in PostgreSQL, and a runner that empties it."""

    def __init__(self) -> None:
        self.database = Database()
        self.runner: Runner | None = None

    def start(self, gateway: Gateway, source: str, draining: Callable[[], bool]) -> None:
        self.runner = Runner(self.database, gateway, source, draining)
        self.runner.start()

    @property
    def busy(self) -> bool:
        return self.runner is not None and self.runner.busy

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.stop()
        await self.database.close()

    async def answer(
        self, admitted: Admitted, method: str, rest: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answered:
        try:
            found = await self._answer(admitted, method, rest.removeprefix(ASYNC), headers, body)
        except Away:
            found = AWAY
        if isinstance(found, Refusal):
            return found.status, NO_STORE + found.headers, found.body()
        status, shown = found
        return status, NO_STORE, orjson.dumps(shown)

    async def _answer(
        self, admitted: Admitted, method: str, tail: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Refusal | tuple[int, dict[str, Any]]:
        if tail.startswith(STATUS):
            request_id, _, verb = tail.removeprefix(STATUS).partition("/")
            if not request_id.isprintable():
                return _unknown(request_id)
            return await self._one(admitted, method, request_id, verb)
        wish = wished(admitted, method, tail, headers, body)
        if isinstance(wish, Refusal):
            return wish
        found = await self.database.do(lambda: submit(admitted, wish))
        self._wake()
        return found

    async def _one(
        self, admitted: Admitted, method: str, request_id: str, verb: str
    ) -> Refusal | tuple[int, dict[str, Any]]:
        if method == "GET" and not verb:
            return await self.database.do(lambda: look_at(admitted, request_id))
        if (method, verb) not in (("DELETE", ""), ("POST", "cancel")):
            return errors.wrong_method(method, "POST" if verb == "cancel" else "GET, DELETE")
        found = await self.database.do(lambda: cancel(admitted, request_id))
        self._wake()
        return found

    def _wake(self) -> None:
        if self.runner is not None:
            self.runner.wake()


def wished(
    admitted: Admitted, method: str, tail: str, headers: Mapping[bytes, bytes], body: bytes
) -> dict[str, Any] | Refusal:
    """The columns of a submission, or why it isn't one. What only the engine can judge is judged at its turn."""
    route, path = admitted.route, f"v1/{tail}"
    refusal = allowed(path, "POST")
    if refusal is not None:
        return errors.unknown_path(f"/{ASYNC}{tail}", ("/v1/async/chat/completions", "/v1/async/status/<id>"))
    if method != "POST":
        return errors.wrong_method(method, "POST")
    if route.desired == "stopped":
        return errors.stopped(stopped_text(route))
    request = parsed(body)
    if isinstance(request, Refusal):
        return request
    if request.get("stream"):
        return STREAMED
    model = request.get("model")
    if model is not None and not route.foreign and model not in route.models:
        return errors.unknown_model(str(model), route.models)
    repeatable = headers.get(b"idempotency-key", b"").decode("latin-1")
    if len(repeatable) > LONGEST_KEY or not repeatable.isprintable():
        return BAD_KEY
    try:
        digest = hashlib.sha256(orjson.dumps([path, request], option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError as wrong:  # nested deeper than it can be written again
        return errors.not_json(f"The body can't be read: {wrong}.")
    webhook = request.pop("webhook_url", None)
    refusal = None if webhook is None else unfit(webhook)
    if refusal is not None:
        return refusal
    same = {"idempotency_key": repeatable, "idempotency_digest": digest if repeatable else ""}
    return {"path": path, "body": orjson.dumps(request), "webhook": webhook or "", **same}


def unfit(webhook: Any) -> Refusal | None:
    """Why a webhook can't be told at this address."""
    try:
        if not isinstance(webhook, str):
            raise address.Refused("It must be a text.")  # noqa: TRY301
        address.checked(webhook, private=settings.WEBHOOK_ALLOW_PRIVATE)
    except address.Refused as refused:
        return errors.wrong_value("webhook_url", f"'webhook_url' can't be used. {refused}")
    return None


def submit(admitted: Admitted, wish: Mapping[str, Any]) -> Refusal | tuple[int, dict[str, Any]]:
    """Queue it. Sent again with its Idempotency-Key, it is the same request, as it stands now."""
    route, key_id, holder = admitted.route, admitted.key.id, admitted.key.holder
    person_id = int(holder.removeprefix(PERSON)) if key_id is None and holder.startswith(PERSON) else None
    length, size = queue.size(route.endpoint_id)
    if length >= LONGEST_QUEUE or size >= LARGEST_QUEUE:
        return FULL
    seconds = queue.estimate(route.endpoint_id, lanes=capacity(route) if route.ready else 0)
    try:
        request, _ = AsyncRequest.submit(
            project_id=route.project_id,
            endpoint_id=route.endpoint_id,
            key_id=key_id,
            person_id=person_id,
            **wish,
        )
    except Refused:
        return TAKEN
    if key_id is not None:
        ApiKey(pk=key_id).used(at=timezone.now())
    return 202, shapes.accepted(request, seconds)


def look_at(admitted: Admitted, request_id: str) -> Refusal | tuple[int, dict[str, Any]]:
    request = AsyncRequest.objects.filter(endpoint=admitted.route.endpoint_id, request_id=request_id).first()
    if request is None:
        return _unknown(request_id)
    if request.expired:
        kept = f"Results are kept for {settings.ASYNC_RESULT_HOURS} hours; this one has expired."
        return Refusal(404, "result_expired", kept)
    return 200, shapes.status(request, admitted.route.name)


def cancel(admitted: Admitted, request_id: str) -> Refusal | tuple[int, dict[str, Any]]:
    """End it. What is over already stays as it is, which is no error for one that was cancelled."""
    request = AsyncRequest.objects.filter(endpoint=admitted.route.endpoint_id, request_id=request_id).first()
    if request is None:
        return _unknown(request_id)
    if request.state in OPEN:
        key = ApiKey.objects.filter(pk=admitted.key.id or 0).first()
        request.cancel(by=str(key or "a signed token"))
    if request.state != State.CANCELLED:
        return Refusal(409, "already_finished", f"It has {request.state} already.", type="conflict_error")
    return 200, shapes.status(request, admitted.route.name)


def _unknown(request_id: str) -> Refusal:
    return Refusal(404, "request_not_found", f"There is no request {errors.shown(request_id)} here.")
