"""What of RFC 6455 a gateway has to know that passes websockets on: the handshake, and where frames end. Pure."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping

from gateway.errors import Headers, Refusal

VERSION = b"13"
SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BEARER = b"tir.bearer."  # begins the subprotocol by which a browser, who can set no header, names its key
PLAIN = b"tir"  # offered beside it, and answered where the instance wants none of the others
SEPARATOR = re.compile(rb"[ \t]*,[ \t]*")

GOING_AWAY, POLICY, INTERNAL = 1001, 1008, 1011
CLOSE = 0x8
NO_VERSION = Refusal(
    426,
    "upgrade_required",
    "A websocket begins with 'Sec-WebSocket-Version: 13' here.",
    headers=((b"sec-websocket-version", VERSION), (b"upgrade", b"websocket")),
)
NO_KEY = Refusal(
    400, "invalid_request", "A websocket begins with a Sec-WebSocket-Key of 16 bytes in base64, once."
)


def listed(value: bytes | None) -> list[bytes]:
    """The members of a header that is a list."""
    return [one for one in SEPARATOR.split(value.strip()) if one] if value else []


def wished(method: bytes, version: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request whose Connection says upgrade asks to go on as a websocket."""
    kinds = [one.lower() for one in listed(headers.get(b"upgrade"))]
    return method == b"GET" and version == "1.1" and b"websocket" in kinds


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """What an Authorization header would say, out of the subprotocols; None where none or several name a key."""
    offered = [one for one in listed(headers.get(b"sec-websocket-protocol")) if one.startswith(BEARER)]
    return "Bearer " + offered[0].removeprefix(BEARER).decode("latin-1") if len(offered) == 1 else None


def unfit(headers: Mapping[bytes, bytes]) -> Refusal | None:
    """Why this handshake is none."""
    if headers.get(b"sec-websocket-version") != VERSION:
        return NO_VERSION
    try:
        key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        return NO_KEY
    return None if len(key) == 16 else NO_KEY


def request_headers(headers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of a handshake without what was for us among its subprotocols."""
    asked = {name: value for name, value in headers.items() if name != b"sec-websocket-protocol"}
    others = [one for one in listed(headers.get(b"sec-websocket-protocol")) if not is_ours(one)]
    return asked | {b"sec-websocket-protocol": b", ".join(others)} if others else asked


def chosen(headers: Mapping[bytes, bytes], answer: Mapping[bytes, bytes]) -> Headers:
    """The subprotocol to answer where the instance chose none: browsers give up if none of theirs is."""
    ours = [one for one in listed(headers.get(b"sec-websocket-protocol")) if is_ours(one)]
    if not ours or b"sec-websocket-protocol" in answer:
        return ()
    return ((b"sec-websocket-protocol", PLAIN if PLAIN in ours else ours[0]),)


def is_ours(protocol: bytes) -> bool:
    return protocol == PLAIN or protocol.startswith(BEARER)


def agrees(request: Mapping[bytes, bytes], answer: Mapping[bytes, bytes]) -> bool:
    """Whether an answer of 101 is one to this handshake."""
    proof = hashlib.sha1(request.get(b"sec-websocket-key", b"") + SALT, usedforsecurity=False).digest()
    upgrades = b"websocket" in [one.lower() for one in listed(answer.get(b"upgrade"))]
    return upgrades and answer.get(b"sec-websocket-accept") == base64.b64encode(proof)


def close_frame(code: int, reason: str) -> bytes:
    """The last frame of a server; `reason` at most 123 bytes."""
    payload = code.to_bytes(2) + reason.encode()
    return bytes((0x80 | CLOSE, len(payload))) + payload


class Frames:
    """Where the frames of one direction end: between two of them one of ours may stand. Looks at nothing else.

    `closed` once a frame said that it is the last.
    """

    def __init__(self) -> None:
        self.closed = False
        self._left = 0  # bytes of the frame that runs
        self._head = b""  # the beginning of the next one's head

    @property
    def between(self) -> bool:
        return not self._left and not self._head

    def follow(self, data: bytes) -> None:
        """Take in what passes."""
        if self._head:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)
        while at < size:
            length = frame_length(data, at)
            if length is None:
                self._head = data[at:]
                break
            if data[at] & 0x0F == CLOSE:
                self.closed = True
            at += length
        self._left = max(0, at - size)

    def end_in(self, data: bytes) -> int:
        """How many of these bytes finish the frame that runs; all of them where it goes on."""
        if not self._head:
            return min(self._left, len(data))
        whole = self._head + data
        length = frame_length(whole, 0)
        return len(data) if length is None else min(length - len(self._head), len(data))


def frame_length(data: bytes, at: int) -> int | None:
    """Bytes of the frame that begins there, with its head; None while too little of the head is here."""
    if len(data) < at + 2:
        return None
    short = data[at + 1] & 0x7F
    masked = 4 if data[at + 1] & 0x80 else 0
    if short < 126:
        return 2 + masked + short
    wide = 2 if short == 126 else 8
    if len(data) < at + 2 + wide:
        return None
    return 2 + wide + masked + int.from_bytes(data[at + 2 : at + 2 + wide])
