"""The gateway's socket and its life: accept, look after quiet connections, drain, end."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from collections.abc import Collection, Sequence
from email.utils import formatdate
from typing import Any

import uvloop

from gateway import compiled
from gateway.admit import Request
from gateway.app import App
from gateway.call import Call
from gateway.client import Limits
from gateway.contract import Jobs, Store
from gateway.core import Gateway
from gateway.cors import Cors
from gateway.heads import Heads
from gateway.keeper import Keeper, every
from gateway.line import HEAD_SECONDS, LINGER_SECONDS, Line
from gateway.meter import Meter
from gateway.telemetry import Options, Telemetry
from gateway.tls import Certificate

log = logging.getLogger("gateway")

DRAIN_SECONDS = 30.0
BACKLOG = 4096
LOOK_SECONDS = 0.25
OPEN_FILES = 65536  # two for each request under way
RENEW_SECONDS = 5.0
YOUNG_OBJECTS = 20_000  # more than wait to be counted: else they are looked through at every few requests


class Server:
    """Every connection of one gateway. `date` is the Date header of answers in this second."""

    def __init__(self, app: App, certificate: Certificate | None = None) -> None:
        self.app = app
        self.certificate = certificate
        self.loop = asyncio.get_running_loop()
        self.lines: set[Line] = set()
        self.heads: Heads[Request] = Heads()
        self.draining = False
        self.date = b""
        self.port = 0
        self._listener: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Begin to read routes, and listen. OSError if the port can't be had."""
        self._look()
        tls: dict[str, Any] = {}
        if self.certificate is not None:  # who neither greets nor says goodbye must not hold up a drain
            tls = {"ssl": self.certificate.context, "ssl_handshake_timeout": HEAD_SECONDS}
            tls["ssl_shutdown_timeout"] = LINGER_SECONDS
        self._listener = await self.loop.create_server(lambda: Line(self), host, port, backlog=BACKLOG, **tls)
        self.port = self._listener.sockets[0].getsockname()[1]
        self.app.keeper.start()
        self._looking = self.loop.create_task(self._looking_after())

    async def stop(self, patience: float = DRAIN_SECONDS, hurry: asyncio.Event | None = None) -> None:
        """Let nobody in, finish what is under way within `patience` seconds (or until `hurry`), cut the rest,
        write down what was counted."""
        self.draining = self.app.keeper.draining = True
        if self._listener is not None:
            self._listener.close()
        for line in list(self.lines):
            if line.call is None:
                line.close()
        ends = self.loop.time() + patience
        while (self.lines or self.app.keeper.busy) and self.loop.time() < ends and not (hurry and hurry.is_set()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for line in list(self.lines):
            try:
                if line.call is not None and line.call.owner is not None:
                    line.call.owner.cut()
            except Exception:
                log.exception("A request could not be cut")
            line.close()
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self.app.keeper.stop()

    def answer(self, call: Call) -> None:
        """Begin to answer a request. An error of ours ends this one, and no other."""
        try:
            self.app.handle(call)
        except Exception:
            log.exception("A request failed")
            call.over()

    async def _looking_after(self) -> None:
        async def look() -> None:
            try:
                self._look()
            except Exception:
                log.exception("A look at the connections failed")

        async def renew() -> None:
            if self.certificate is not None:
                self.certificate.look()

        await asyncio.gather(every(LOOK_SECONDS, look), every(RENEW_SECONDS, renew))

    def _look(self) -> None:
        now = self.loop.time()
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self.app.gateway.dispatch.look()
        for line in list(self.lines):
            line.look(now)


def assemble(
    meter: Meter,
    store: Store,
    limits: Limits | None = None,
    origins: Sequence[str] = (),
    telling: Options | None = None,
    jobs: Jobs | None = None,
    private: Collection[str] = (),
) -> App:
    """The whole gateway but for its socket. Needs a running event loop's clock."""
    clock = asyncio.get_running_loop().time
    gateway = Gateway(meter, clock, limits=limits)
    gateway.jobs = jobs
    gateway.private = frozenset(name.encode() for name in private)
    return App(gateway, Keeper(gateway, store, Telemetry(gateway, telling)), Cors(origins))


def serve(
    meter: Meter,
    store: Store,
    *,
    host: str,
    port: int,
    limits: Limits | None = None,
    origins: Sequence[str] = (),
    telling: Options | None = None,
    certificate: Certificate | None = None,
    jobs: Jobs | None = None,
    private: Collection[str] = (),
) -> None:
    """Serve until told to end (SIGTERM, SIGINT); requests under way get `DRAIN_SECONDS`, or end at once when
    told twice. OSError if the port can't be had.

    `origins`: URLs whose pages may call from a browser. `telling`: what is told of requests, and to whom.
    `certificate`: speak TLS with it; without one a proxy in front may. `private`: names of cookies that no
    instance sees.
    """

    _allow_files()

    async def main() -> None:
        told, hurry = asyncio.Event(), asyncio.Event()

        def tell() -> None:
            (hurry if told.is_set() else told).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, tell)
        server = Server(assemble(meter, store, limits, origins, telling, jobs, private), certificate)
        await server.start(host, port)
        log.info("The hot path runs %s", "compiled" if compiled.runs else "interpreted")
        gc.collect()
        gc.set_threshold(YOUNG_OBJECTS)  # what a request holds goes by itself
        gc.freeze()  # what a start leaves stays for good: to look through it again and again is a pause for all
        await told.wait()
        await server.stop(hurry=hurry)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _allow_files() -> None:
    """Take as many open files as the system lets us have: a process begins with 1024 nearly everywhere, and 500
    requests at a time would be all."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if wanted > soft != resource.RLIM_INFINITY:
        with contextlib.suppress(ValueError, OSError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
