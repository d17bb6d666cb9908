"""No request's body may fill the console's memory.

daphne takes a body in whole before anything of ours sees the request, on disk at first and then in memory, whoever
sends it. What is larger than any page or route of ours takes is refused as soon as its length is known.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from accounts.rest import Problem

LARGEST: Final = 80 << 20  # a piece of an upload, with what a form puts around it
BEYOND: Final = Problem(413, "too_large", f"A request may bring {LARGEST >> 20} MiB. Send large files in pieces.")


def limit_bodies(largest: int = LARGEST) -> None:
    """Have daphne's requests end at so many bytes, where daphne is what runs."""
    if "daphne.http_protocol" not in sys.modules:
        return  # importing it would put its event loop into whatever runs instead
    from daphne.http_protocol import WebRequest  # noqa: PLC0415
    from twisted.web.http import Request  # noqa: PLC0415

    def got_length(self: Any, length: int | None) -> None:
        Request.gotLength(self, length)  # type: ignore[no-untyped-call]
        self.came = 0
        if length is not None and length > largest:
            _refuse(self)

    def chunk(self: Any, data: bytes) -> None:
        self.came += len(data)
        if self.came > largest:
            _refuse(self)
        elif self.came >= 0:
            Request.handleContentChunk(self, data)  # type: ignore[no-untyped-call]

    WebRequest.gotLength, WebRequest.handleContentChunk = got_length, chunk


def _refuse(request: Any) -> None:
    """Answer without a look at the rest, and hang up: who sends more than that does not listen either."""
    request.came = -(1 << 62)  # whatever else comes before the connection is gone counts for nothing
    body = json.dumps(BEYOND.as_json()).encode()
    head = f"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    request.channel.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    request.channel.loseConnection()
