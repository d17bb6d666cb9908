"""What a gateway answers, whoever carries the bytes: `/healthz`, a browser's preflight, and all the rest."""

import orjson

from gateway import errors
from gateway.call import Call
from gateway.core import Gateway, refuse
from gateway.cors import Cors
from gateway.exchange import JSON
from gateway.keeper import Keeper


class App:
    """One gateway behind its transport."""

    def __init__(self, gateway: Gateway, keeper: Keeper, cors: Cors | None = None) -> None:
        self.gateway = gateway
        self.keeper = keeper
        self.cors = cors or Cors()

    def handle(self, call: Call) -> None:
        """Answer one request whole, now or by and by."""
        request = call.request
        if b"origin" in request.headers:
            origin = request.headers[b"origin"]
            call.extra = self.cors.headers(origin)
            preflight = self.cors.preflight(origin) if request.method == "OPTIONS" else None
            if preflight is not None:
                call.start(204, preflight)
                call.end()
                call.over()
                return
        if request.path == "/healthz":
            self._health(call)
        else:
            self.gateway.handle(call)

    def _health(self, call: Call) -> None:
        if call.request.method not in ("GET", "HEAD"):
            refuse(call, errors.wrong_method(call.request.method, "GET"))
            return
        status, found = self.keeper.health()
        call.answer(status, JSON, orjson.dumps(found))
        call.over()
