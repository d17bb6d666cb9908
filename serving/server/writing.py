"""Chats and completions: whole answers, streams, and what is counted about them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from aiohttp import web

from serving.models.base import BadInput, Reply, Served
from serving.models.own import joined
from serving.server import errors, openai
from serving.server.openai import Asked
from serving.server.state import State
from serving.server.wire import dumps
from serving.server.workers import END, Broken, Stream

HEARTBEAT_SECONDS = 15.0
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
Piece = str | Reply


class Writing:
    """One request to write, from its check to its last byte."""

    def __init__(self, request: web.Request, state: State, asked: Asked, model: Served) -> None:
        self.request = request
        self.state = state
        self.asked = asked
        self.model = model
        self.alias = state.config.alias
        self.seconds = state.config.options.request_seconds
        self.prompt_tokens: int | None = None

    async def answer(self) -> web.StreamResponse:
        """The whole answer, or the end of its stream."""
        self.prompt_tokens = await asyncio.to_thread(self.model.count_tokens, self.asked.text)
        length = self.state.config.context_length
        if self.prompt_tokens is not None and self.prompt_tokens >= length:
            words = f"the prompt has {self.prompt_tokens} tokens, and the context length is {length}"
            raise errors.Wrong(400, words, code="context_length_exceeded")
        try:
            if self.asked.chat and not self.asked.streamed and not self.model.by_stream:
                async with asyncio.timeout(self.seconds):
                    reply = await self.state.workers.call(self.model.chat, self.asked.messages, self.asked.params)
                return await self._whole(reply)
            async with self.state.workers.stream(self._work()) as stream:
                first = await stream.next(self.seconds)
                if self.asked.streamed:
                    return await self._events(stream, first)
                return await self._gathered(stream, first)
        except Broken as broken:
            raise _told(broken) from broken
        except BadInput as error:
            raise _refused(error) from error

    def _work(self) -> Callable[[], Iterator[Piece]]:
        if self.asked.chat:
            return partial(self.model.stream, self.asked.messages, self.asked.params)
        return partial(self.model.complete, self.asked.prompt, self.asked.params)

    async def _gathered(self, stream: Stream, piece: Any) -> web.Response:
        """The whole answer out of a stream, which stops when the client hangs up."""
        pieces: list[Piece] = []
        async with asyncio.timeout(self.seconds):
            while piece is not END:
                pieces.append(piece)
                piece = await stream.next(self.seconds)
        return await self._whole(joined(iter(pieces)))

    async def _whole(self, reply: Reply) -> web.Response:
        body = openai.answer(self.asked, self.alias, await self._settled(reply))
        return web.Response(body=dumps(body), content_type="application/json")

    async def _events(self, stream: Stream, piece: Any) -> web.StreamResponse:
        """Pieces as they come. What went wrong before the first is a plain error, after it the last event."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(self.request)
        if self.asked.chat:
            await _send(response, openai.chunk(self.asked, self.alias, first=True))
        pieces: list[Piece] = []
        try:
            while piece is not END:
                pieces.append(piece)
                if words := piece.text if isinstance(piece, Reply) else piece:
                    await _send(response, openai.chunk(self.asked, self.alias, words))
                piece = await self._next(stream, response)
        except (Broken, TimeoutError) as error:
            wrong = self.state.failed(self.request, _told(error) if isinstance(error, Broken) else error)
            await _send(response, wrong.body())  # and no [DONE]
            return response
        await self._end(response, await self._settled(joined(iter(pieces))))
        return response

    async def _next(self, stream: Stream, response: web.StreamResponse) -> Any:
        """The next piece; a comment every 15 s keeps the connection while the model thinks."""
        waited = 0.0
        while True:
            try:
                return await stream.next(min(HEARTBEAT_SECONDS, self.seconds - waited))
            except TimeoutError:
                waited += HEARTBEAT_SECONDS
                if waited >= self.seconds:
                    raise
                await response.write(b": thinking\n\n")

    async def _end(self, response: web.StreamResponse, reply: Reply) -> None:
        await _send(response, openai.chunk(self.asked, self.alias, end=reply.finish_reason))
        if self.asked.wants_usage and openai.usage(reply):
            await _send(response, openai.last(self.asked, self.alias, reply))
        await response.write(b"data: [DONE]\n\n")

    async def _settled(self, reply: Reply) -> Reply:
        """With the counts that the model left to us, and how it ended; counted for /metrics."""
        prompt = self.prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
        written = reply.completion_tokens
        if written is None:
            written = await asyncio.to_thread(self.model.count_tokens, reply.text)
        for kind, count in (("prompt", prompt), ("completion", written)):
            self.state.metrics.tokens.labels(kind).inc(count or 0)
        limit = self.asked.params.get("max_tokens")
        full = limit is not None and written is not None and written >= limit
        return Reply(reply.text, reply.finish_reason or ("length" if full else "stop"), prompt, written)


async def _send(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(b"data: " + dumps(data) + b"\n\n")


def _told(broken: Broken) -> Exception:
    """What the iterator raised, as the client is told it."""
    cause = broken.__cause__
    if isinstance(cause, BadInput):
        return _refused(cause)
    return cause if isinstance(cause, Exception) else broken


def _refused(error: BadInput) -> errors.Wrong:
    return errors.Wrong(400, str(error), code="invalid_value")
