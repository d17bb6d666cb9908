"""A small OpenAI-shaped engine that misbehaves on request: the prompt says how.

It speaks through raw asyncio streams, so that every way to break HTTP is open to it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

import orjson


@dataclass
class Engine:
    """One engine on a port of its own. `behaviour` rules until it is changed; see `BEHAVIOURS`."""

    behaviour: str = "good"
    words: int = 3
    sent: int = 0  # bytes of streams that the gateway's side took
    pause: float = 0.0
    port: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    open: int = 0
    hung_up: int = 0
    connections: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def connected(self) -> int:
        """Connections that it has not let go of."""
        return len(self._tasks)

    async def stop(self) -> None:
        """Stop listening and cut every connection, as a killed process does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        request = orjson.loads(body) if body else {}
        self.seen.append(request)
        self.open += 1
        watch = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self._answer(head, request, writer))
        try:
            await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.hung_up += 1
                return False
            return bool(work.result())
        finally:
            self.open -= 1
            for task in (watch, work):
                task.cancel()
            await asyncio.gather(watch, work, return_exceptions=True)

    async def _answer(self, head: str, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        match self.behaviour:
            case "hang":
                await self.hold.wait()
            case "die":
                return False
            case "refuse":
                return await self._json(writer, {"error": {"message": "no such thing", "code": 501}}, status=501)
            case "loading":
                return await self._json(writer, {"detail": "Loading model"}, status=503)
            case "cut json":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
                await writer.drain()
                return False
            case "close":
                await self._json(writer, self._completion(request), close=True)
                return False
        if "/v1/models" in head:
            return await self._json(writer, {"object": "list", "data": [{"id": "tiny"}]})
        if request.get("stream"):
            return await self._stream(request, writer)
        if self.pause:
            await asyncio.sleep(self.pause)
        return await self._json(writer, self._completion(request))

    def _completion(self, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * self.words}}],
            "usage": {"prompt_tokens": 11, "completion_tokens": self.words},
        }
        if self.behaviour == "no usage":
            del answer["usage"]
        return answer

    async def _json(
        self, writer: asyncio.StreamWriter, body: Any, *, status: int = 200, close: bool = False
    ) -> bool:
        data = orjson.dumps(body)
        ending = "connection: close\r\n" if close else ""
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{ending}content-length: {len(data)}\r\n"
        writer.write(f"{head}x-engine: secret\r\nset-cookie: a=b\r\n\r\n".encode() + data)
        await writer.drain()
        return not close

    async def _stream(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        kind = "text/event-stream"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        if self.behaviour == "error first":
            await self._chunk(writer, b'data: {"error":{"message":"context too long","code":400}}\n\n')
        elif self.behaviour == "silent first":
            await self.hold.wait()
        if self.behaviour not in ("empty", "error first"):
            await self._events(request, writer)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        if self.behaviour == "hang up after streams":  # a moment later, as llama.cpp does
            await asyncio.sleep(0.02)
            return False
        return True

    async def _events(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        for number in range(self.words):
            if number and self.pause:
                await asyncio.sleep(self.pause)
            await self._event(writer, {"choices": [{"index": 0, "delta": {"content": f"word{number} "}}]})
            if self.behaviour == "hang after first":
                await self.hold.wait()
            if self.behaviour == "cut stream":
                raise ConnectionResetError
            if self.behaviour == "error event":
                await self._chunk(writer, b'error: {"message":"out of memory","code":500}\n\n')
        if self.behaviour != "no usage" and (request.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 11, "completion_tokens": self.words}
            await self._event(writer, {"choices": [], "usage": usage})
        await self._chunk(writer, b"data: [DONE]\n\n")

    async def _event(self, writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
        await self._chunk(writer, b"data: " + orjson.dumps(chunk) + b"\n\n")

    async def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
        self.sent += len(data)
