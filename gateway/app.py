"""What a gateway answers, whoever carries the bytes: `/healthz`, `/metrics`, a preflight, and all the rest."""

import orjson

from gateway import errors
from gateway.admit import Request, locate
from gateway.call import Call
from gateway.core import Gateway, refuse
from gateway.cors import Cors
from gateway.errors import Headers
from gateway.exchange import JSON
from gateway.keeper import Keeper
from gateway.metrics import CONTENT_TYPE

OWN = ("/healthz", "/metrics")
FORWARDED = {b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"}  # a proxy speaks for somebody else


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
            preflight = self._met_browser(call)
            if preflight is not None:
                call.start(204, preflight)
                call.end()
                call.over()
                return
        if request.path in OWN and not self._is_endpoints(request):
            (self._health if request.path == "/healthz" else self._metrics)(call)
        else:
            self.gateway.handle(call)

    def _met_browser(self, call: Call) -> Headers | None:
        """Tell it whether its page may read the answer; the answer itself, to one that asks only that."""
        request = call.request
        origin, place = request.headers[b"origin"], locate(self.gateway.table, request.path, request.host)
        route = place.route if place is not None else None
        named = route.admission.origins if route is not None else frozenset()
        call.extra = self.cors.headers(origin, named)
        if request.method != "OPTIONS":
            return None
        if route is not None and route.open:
            return self.cors.preflight_of_any(request.headers, named)
        return self.cors.preflight(request.headers, named)

    def _is_endpoints(self, request: Request) -> bool:
        """Whether the path is that of an endpoint which has paths of its own, at its own address."""
        route = self.gateway.table.hosted(request.host)
        return route is not None and route.open

    def _health(self, call: Call) -> None:
        if call.request.method not in ("GET", "HEAD"):
            refuse(call, errors.wrong_method(call.request.method, "GET"))
            return
        status, found = self.keeper.health()
        call.answer(status, JSON, orjson.dumps(found))
        call.over()

    def _metrics(self, call: Call) -> None:
        request, telemetry = call.request, self.keeper.telemetry
        forwarded = not FORWARDED.isdisjoint(request.headers)
        if request.method not in ("GET", "HEAD"):
            refuse(call, errors.wrong_method(request.method, "GET"))
        elif not telemetry.metrics.allowed(call.peer, request.authorization, forwarded=forwarded):
            refuse(call, telemetry.metrics.denial)
        else:
            connections = len(call.line.server.lines)
            call.answer(200, CONTENT_TYPE, telemetry.page(self.keeper.duties(), connections))
            call.over()
