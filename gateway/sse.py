"""A stream of server-sent events on its way through: read, counted, and passed on as it came.

Bytes arrive cut anywhere. An event is passed on when its blank line is there, which is when a client could
first use it. What is changed: the usage that only we asked for is taken out, and an engine's bare `error:`
line becomes the data event that clients read. Everything else leaves byte for byte as it came.
"""

import re
from typing import Any

import orjson

from gateway.errors import Refusal, upstream
from gateway.usage import Usage, delivered_chars, usage_of

EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\r\n\n|\n\r\n")
LINE_END = re.compile(rb"\r\n|\n|\r")
LONGEST_EVENT = 8 * 2**20
UNREAD_BYTES = 32 * 1024
DONE = b"[DONE]"
CODE = re.compile(r"[\w.:-]{1,64}", re.ASCII)  # what is counted and remembered as one


class EventFilter:
    """Fed with what the engine sends; answers with what the client gets.

    `events` counts data events that were passed on or would have been, `usage` is what the engine counted,
    `chars` how much text went by, `error` the engine's error event, `done` whether [DONE] came.
    """

    def __init__(self, *, keep_usage: bool) -> None:
        self.keep_usage = keep_usage
        self.pending = b""
        self.events = 0
        self._chars = 0
        self._unread: list[bytes] = []  # chunks whose text nobody has counted yet, and may never need to
        self._unread_bytes = 0
        self.usage: Usage | None = None
        self.error: Refusal | None = None
        self.done = False

    @property
    def chars(self) -> int:
        for raw in self._unread:
            self._count(raw)
        self._unread, self._unread_bytes = [], 0
        return self._chars

    def passes(self, data: bytes) -> bool:
        """Take in some bytes if they are one whole event of text, which goes on as it is; what nearly every read
        brings. If they aren't, `feed` has to take them."""
        plain = (
            data.startswith(b"data: {")
            and data.find(b"\n") == len(data) - 2
            and data.endswith(b"\n")
            and data.find(b'"usage"') < 0  # `in` would first try whether this is a number
            and data.find(b'"error"') < 0
            and data.find(b"\r") < 0
            and not self.pending
            and self.error is None
        )
        if plain:
            self.events += 1
            self._unread.append(data)
            self._unread_bytes += len(data)
            if self._unread_bytes > UNREAD_BYTES:
                self._chars = self.chars
        return plain

    def feed(self, data: bytes) -> bytes:
        """Take in some bytes, answer the whole events among them as the client should see them.

        Raises ValueError when one event outgrows every bound.
        """
        pending = self.pending + data if self.pending else data
        out, start = [], 0
        looked = max(0, len(self.pending) - 3)  # up to there no end was seen, nor the beginning of one
        for found in EVENT_END.finditer(pending, looked):
            if found.end() == len(pending) and pending.endswith(b"\r"):
                break  # the other half of a CR LF may be in the next read
            out.append(self._event(pending[start : found.end()]))
            start = found.end()
        self.pending = pending[start:]
        if len(self.pending) > LONGEST_EVENT:
            raise ValueError(f"one event of the stream is longer than {LONGEST_EVENT // 2**20} MiB")
        return out[0] if len(out) == 1 else b"".join(out)

    def close(self) -> bytes:
        """The engine's end: an event that lacked only its blank line is completed."""
        rest, self.pending = self.pending, b""
        return self._event(rest.rstrip(b"\r\n") + b"\n\n") if rest.strip() else b""

    def _event(self, raw: bytes) -> bytes:
        if self.error is not None:
            return b""  # a failure is the last that is heard; no [DONE] makes it look whole
        data = data_of(raw)
        if data is None:
            return self._failed(raw) if raw.startswith(b"error:") else raw
        if data == DONE:
            self.done = True
            return raw
        if data.startswith(b"{") and data.find(b'"usage"') < 0 and data.find(b'"error"') < 0:
            self.events += 1
            self._unread.append(raw)  # only its text is of interest, and only where no usage comes
            self._unread_bytes += len(raw)
            if self._unread_bytes > UNREAD_BYTES:
                self._chars = self.chars
            return raw
        try:
            chunk: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            self.events += 1
            return raw
        return self._chunk(chunk, raw) if isinstance(chunk, dict) else raw

    def _chunk(self, chunk: dict[str, Any], raw: bytes) -> bytes:
        if chunk.get("error"):
            self.error = error_of(chunk["error"])
            return raw
        self.events += 1
        self._chars += delivered_chars(chunk)
        if "usage" not in chunk:
            response = chunk.get("response")  # where the responses API has it, who always tells it
            if isinstance(response, dict):
                self.usage = usage_of(response.get("usage")) or self.usage
            return raw
        counted = usage_of(chunk["usage"])
        self.usage = counted or self.usage
        if self.keep_usage:
            return raw
        if counted and not chunk.get("choices"):
            return b""
        del chunk["usage"]
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def _count(self, raw: bytes) -> None:
        try:
            chunk: Any = orjson.loads(data_of(raw) or b"")
        except orjson.JSONDecodeError:
            return
        if isinstance(chunk, dict):
            self._chars += delivered_chars(chunk)

    def _failed(self, raw: bytes) -> bytes:
        text = raw[len(b"error:") :].strip()
        try:
            found: Any = orjson.loads(text)
        except orjson.JSONDecodeError:
            found = text.decode("utf-8", "replace")
        self.error = error_of(found.get("error", found) if isinstance(found, dict) else found)
        return self.error.event()


def data_of(raw: bytes) -> bytes | None:
    """The data of one event, its lines joined; None when it has none (a comment, a heartbeat)."""
    if raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.find(b"\n") == len(raw) - 2:
        return raw[6:-2]  # the shape that nearly every event has
    lines = [line for line in LINE_END.split(raw) if line.startswith(b"data:") or line == b"data"]
    if not lines:
        return None
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def error_of(error: Any) -> Refusal:
    """An engine's error event as a refusal: its own status where it gives a sensible one, else 502."""
    if not isinstance(error, dict):
        return upstream(502, "upstream_error", str(error) or "The engine failed without saying why.")
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 502
    message = error.get("message")
    text = message if isinstance(message, str) and message else "The engine failed without saying why."
    named = code if isinstance(code, str) and CODE.fullmatch(code) else "upstream_error"
    return upstream(status, named, text)
