"""A caller without a line: a request of our own, on the path that every request takes, held in memory."""

import asyncio
from typing import TYPE_CHECKING

from gateway import errors
from gateway.admit import Admitted, Request
from gateway.answer import LONG
from gateway.client import Limits, Owner
from gateway.errors import Headers, Refusal
from gateway.exchange import Exchange
from gateway.jobs.judge import TOO_LARGE, TOO_LONG, Answer, End, ending

if TYPE_CHECKING:
    from gateway.core import Gateway

LOOK_SECONDS = 0.5
ANSWER_BYTES = 32 * 2**20
RUN_SECONDS = 3600.0


class Caller:
    """A `gateway.client.Client`. `answered` becomes the whole answer, or None for one that broke off."""

    owner: Owner | None = None
    started = False
    streaming = False
    full = secure = False
    extra: Headers = ()
    behind = None
    peer = ""

    def __init__(self, request: Request, body: bytes) -> None:
        self.request = request
        self.request_id = request.request_id
        self.answered: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self.too_large = False
        self._body = body
        self._status = 0
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = False

    def body(self, limits: Limits) -> bytes | Refusal | None:
        return errors.too_large(limits.body_bytes) if len(self._body) > limits.body_bytes else self._body

    def answer(self, status: int, kind: bytes, body: bytes, headers: Headers = (), lines: bytes = b"") -> None:
        self.start(status, headers)
        self.end(body)

    def start(self, status: int, headers: Headers) -> None:
        self.started, self._status = True, status
        self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}

    def send(self, data: bytes) -> bool:
        self._size += len(data)
        if self._size <= ANSWER_BYTES:
            self._parts.append(data)
        elif not self.too_large:
            self.too_large = True
            asyncio.get_running_loop().call_soon(self.hang_up)  # not while whoever sends is still at it
        return False

    def end(self, data: bytes = b"") -> None:
        self.send(data)
        self._whole = not self.too_large

    def abort(self) -> None:
        self._whole = False

    def over(self) -> None:
        whole = Answer(self._status, self._headers, b"".join(self._parts)) if self._whole else None
        if not self.answered.done():
            self.answered.set_result(whole)

    def hang_up(self) -> None:
        if self.owner is not None and not self.answered.done():
            self.owner.caller_left()


async def ask(gateway: "Gateway", admitted: Admitted, body: bytes, request_id: str) -> Answer | End | None:
    """The answer; None if it broke off. Cancelled, it hangs up, which ends the instance's work."""
    path = f"/e/{admitted.route.name}/{admitted.rest}"
    caller = Caller(Request("POST", path, "", None, request_id=request_id.encode()), body)
    loop = asyncio.get_running_loop()
    until = loop.time() + RUN_SECONDS
    try:
        gateway.awake.calls += 1
        caller.owner = exchange = Exchange(gateway, caller, admitted)
        try:
            exchange.begin()
        except Exception as failure:  # noqa: BLE001 (as for a caller on a line: this request ends by it)
            exchange.broke(failure)
        while not caller.answered.done() and loop.time() < until:
            await asyncio.wait({caller.answered}, timeout=LOOK_SECONDS)
            if caller.owner is not None and not caller.answered.done():
                caller.owner.look(loop.time())
    finally:
        late = not caller.answered.done()
        caller.hang_up()
    if caller.too_large:
        return TOO_LARGE
    if exchange.code == LONG.code:  # it would be as long the next time
        return ending(LONG.status, LONG.code, LONG.message)
    return TOO_LONG if late else await caller.answered
