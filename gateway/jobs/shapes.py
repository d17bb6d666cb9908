"""An asynchronous request as programs are shown it: at its status address, and in its webhook."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from gateway.jobs.models import AsyncRequest, State, Told


def told(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def accepted(request: AsyncRequest, seconds: float | None) -> dict[str, Any]:
    """The answer to a submission; `seconds` until it is done, None without a history to say."""
    done = None if seconds is None or request.over else request.created_at + timedelta(seconds=seconds)
    return {"request_id": request.request_id, "status": request.state, "estimated_completion_time": told(done)}


def status(request: AsyncRequest, name: str) -> dict[str, Any]:
    """Everything but its body. `response` is the engine's own answer; `error` is in OpenAI's shape."""
    answer = request.opened(request.answer) if request.state == State.SUCCEEDED else None
    return {
        "request_id": request.request_id,
        "object": "async.request",
        "endpoint": name,
        "path": f"/{request.path}",
        "status": request.state,
        "created_at": told(request.created_at),
        "started_at": told(request.started_at),
        "finished_at": told(request.finished_at),
        "expires_at": told(request.expires_at),
        "attempts": request.attempts,
        "response": orjson.Fragment(answer) if answer else None,
        "error": request.error(),
        "webhook": _webhook(request),
    }


def event(request: AsyncRequest, name: str) -> bytes:
    """What a webhook is sent; the same bytes on each try."""
    shown = status(request, name)
    del shown["webhook"]  # it changes between tries
    return orjson.dumps(
        {"type": f"async.request.{request.state}", "timestamp": told(request.finished_at), "data": shown}
    )


def _webhook(request: AsyncRequest) -> dict[str, Any] | None:
    if request.webhook is None:
        return None
    last = request.deliveries.first()
    return {
        "state": request.told if request.told != Told.LATER else "after_result",
        "tries": request.tries,
        "next_try_at": told(request.next_try_at) if request.told == Told.WAITING else None,
        "last_status": last.status if last else None,
        "last_error": (last.error or None) if last else None,
    }
