"""What a gateway answers, whoever carries the bytes: `/healthz`, a browser's preflight, and all the rest."""

import orjson

from gateway import errors
from gateway.admit import Request
from gateway.core import Gateway, refuse
from gateway.cors import Cors
from gateway.keeper import Keeper
from gateway.line import Call
from gateway.relay import JSON


class App:
    """One gateway behind its transport."""

    def __init__(self, gateway: Gateway, keeper: Keeper, cors: Cors | None = None) -> None:
        self.gateway = gateway
        self.keeper = keeper
        self.cors = cors or Cors()

    async def handle(self, request: Request, call: Call) -> None:
        """Answer one request whole."""
        origin = call.headers.get(b"origin")
        if origin is not None:
            call.extra = self.cors.headers(origin)
            preflight = self.cors.preflight(origin) if request.method == "OPTIONS" else None
            if preflight is not None:
                await call.start(204, preflight)
                await call.end()
                return
        if request.path == "/healthz":
            await self._health(request, call)
        else:
            await self.gateway.handle(request, call)

    async def _health(self, request: Request, call: Call) -> None:
        if request.method not in ("GET", "HEAD"):
            await refuse(call, errors.wrong_method(request.method, "GET"))
            return
        status, found = self.keeper.health()
        body = orjson.dumps(found)
        await call.start(status, (*JSON, (b"content-length", str(len(body)).encode())))
        await call.end(body)
