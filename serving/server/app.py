"""The paths of the server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from serving.models.base import BadInput
from serving.server import errors, openai
from serving.server.state import Phase, State, path_of
from serving.server.wire import dumps, loads
from serving.server.writing import Writing

STATE = web.AppKey("state", State)
BODY_SECONDS = 60.0
WORK = ("/predict", "/v1/chat/completions", "/v1/completions", "/v1/embeddings")
log = logging.getLogger("serving")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(state: State) -> web.Application:
    """The server's paths over this state."""
    app = web.Application(middlewares=[_guarded], client_max_size=state.config.options.max_body_mb << 20)
    app[STATE] = state
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/metrics", metrics),
            web.get("/metadata", metadata),
            web.get("/v1/models", models),
            web.get("/v1/models/{alias}", model),
            web.post("/predict", predict),
            web.post("/v1/chat/completions", chat),
            web.post("/v1/completions", completions),
            web.post("/v1/embeddings", embeddings),
        ]
    )
    return app


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in one shape, every request counted, and what the drain waits for."""
    state, began, path = request.app[STATE], time.monotonic(), path_of(request)
    works = path in WORK
    state.in_flight += works
    state.metrics.in_flight.set(state.in_flight)
    status = 499  # the client left: nothing was answered
    try:
        try:
            response = await handler(request)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  every fault is answered, and the model's own is logged
            response = state.failed(request, error).response()
        status = response.status
        return response
    finally:
        state.in_flight -= works
        state.metrics.in_flight.set(state.in_flight)
        state.metrics.requests.labels(path, str(status)).inc()
        if works:
            state.metrics.seconds.labels(path).observe(time.monotonic() - began)
        log.debug("%s %s %d in %.3f s", request.method, path, status, time.monotonic() - began)


async def health(request: web.Request) -> web.Response:
    """200 only once the model is loaded and warm, and until it is told to end."""
    phase = request.app[STATE].phase
    return _json({"status": phase.value}, 200 if phase is Phase.OK else 503)


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text."""
    return web.Response(body=request.app[STATE].metrics.text(), content_type="text/plain")


async def metadata(request: web.Request) -> web.Response:
    """What the model takes and gives, and what was done to its weights."""
    return _json(request.app[STATE].shown())


async def models(request: web.Request) -> web.Response:
    """The one model, as OpenAI lists them."""
    return _json({"object": "list", "data": [_entry(request.app[STATE])]})


async def model(request: web.Request) -> web.Response:
    """The one model with its metadata."""
    state = request.app[STATE]
    if request.match_info["alias"] != state.config.alias:
        raise errors.Wrong(404, f"there is no such model; there is {state.config.alias}", code="model_not_found")
    return _json({**_entry(state), "metadata": state.shown()})


async def predict(request: web.Request) -> web.Response:
    """{"input": …} → {"output": …}; {"inputs": […]} → {"outputs": […]}, 207 with `errors` if some fail."""
    state = request.app[STATE]
    state.model("predict")
    body = await _body(request)
    if not isinstance(body, dict) or len({"input", "inputs"} & set(body)) != 1:
        raise errors.Wrong(422, 'the body must be {"input": …} or {"inputs": […]}', code="invalid_body")
    if "input" in body:
        [output] = await _timed(state, state.predict.all_of([body["input"]]))
        if isinstance(output, Exception):
            raise _item(output) from output
        return _json({"output": output})
    if not isinstance(body["inputs"], list) or not body["inputs"]:
        raise errors.Wrong(422, "inputs must be a list of one or more", code="invalid_body", param="inputs")
    return _many(await _timed(state, state.predict.all_of(body["inputs"])))


async def chat(request: web.Request) -> web.StreamResponse:
    """OpenAI's chat."""
    state = request.app[STATE]
    served = state.model("chat")
    return await Writing(request, state, openai.chat(await _body(request, 400)), served).answer()


async def completions(request: web.Request) -> web.StreamResponse:
    """OpenAI's completion of a text."""
    state = request.app[STATE]
    served = state.model("completions")
    return await Writing(request, state, openai.completion(await _body(request, 400)), served).answer()


async def embeddings(request: web.Request) -> web.Response:
    """OpenAI's embeddings."""
    state = request.app[STATE]
    served = state.model("embeddings")
    texts = openai.texts(await _body(request, 400))
    vectors = await _timed(state, state.embed.all_of(texts))
    if wrong := next((one for one in vectors if isinstance(one, Exception)), None):
        raise _item(wrong) from wrong
    counts = await asyncio.to_thread(lambda: [served.count_tokens(text) for text in texts])
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(vectors)]
    answer: dict[str, Any] = {"object": "list", "model": state.config.alias, "data": data}
    if None not in counts:
        total = sum(count or 0 for count in counts)
        state.metrics.tokens.labels("prompt").inc(total)
        answer["usage"] = {"prompt_tokens": total, "total_tokens": total}
    return _json(answer)


def _many(outputs: list[Any]) -> web.Response:
    failed = [
        {"index": index, **_item(one).body()} for index, one in enumerate(outputs) if isinstance(one, Exception)
    ]
    found = [None if isinstance(one, Exception) else one for one in outputs]
    if len(failed) == len(outputs):
        first = next(one for one in outputs if isinstance(one, Exception))
        raise _item(first) from first
    return _json({"outputs": found} | ({"errors": failed} if failed else {}), 207 if failed else 200)


def _item(error: Exception) -> errors.Wrong:
    """What an item's sender is told; the batcher has logged a fault of the model's own."""
    if isinstance(error, BadInput):
        return errors.Wrong(422, str(error), code="invalid_input", param="input")
    return errors.of(error)


async def _timed(state: State, work: Awaitable[list[Any]]) -> list[Any]:
    async with asyncio.timeout(state.config.options.request_seconds):
        return await work


async def _body(request: web.Request, status: int = 422) -> Any:
    """The request's JSON. Wrong with this status if it is none, 408 if it does not come."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            text = await request.read()
    except TimeoutError as error:
        raise errors.Wrong(408, "the request's body did not come in time", code="body_timeout") from error
    try:
        return loads(text)
    except ValueError as error:
        raise errors.Wrong(status, f"the body is not JSON: {error}", code="invalid_body") from error


def _entry(state: State) -> dict[str, Any]:
    return {
        "id": state.config.alias,
        "object": "model",
        "created": state.created,
        "owned_by": "tir",
        "capabilities": list(state.model().capabilities),
    }


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=dumps(value), content_type="application/json")
