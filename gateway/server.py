"""uvicorn on uvloop, set up for this: own logs, no banner, writes that leave at once, and a drain."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.app import App
from gateway.balance import Balancer
from gateway.client import Limits
from gateway.contract import Store
from gateway.core import Gateway
from gateway.cors import Cors
from gateway.keeper import Keeper
from gateway.meter import Meter
from gateway.upstream import Pool

DRAIN_SECONDS = 30
KEEP_ALIVE_SECONDS = 75


class PromptProtocol(HttpToolsProtocol):
    """Every write goes to the kernel at once: uvloop would else gather them until the loop's next turn, and
    a kill in between would leave answers counted that nobody got."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)


class Server(uvicorn.Server):
    """Told to end, it drains and ends well; told twice, it ends at once. `/healthz` says so from the start."""

    def __init__(self, config: uvicorn.Config, keeper: Keeper) -> None:
        super().__init__(config)
        self.keeper = keeper

    def handle_exit(self, sig: int, frame: Any) -> None:
        """In place of uvicorn's, which would raise the signal again after the drain: a drain is no failure."""
        self.keeper.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True


def assemble(meter: Meter, store: Store, limits: Limits | None = None, origins: Sequence[str] = ()) -> App:
    """The whole gateway but for its socket. Needs a running event loop's clock."""
    clock = asyncio.get_running_loop().time
    gateway = Gateway(meter, Balancer(clock), Pool(clock), limits)
    return App(gateway, Keeper(gateway, store), Cors(origins))


def serve(
    meter: Meter,
    store: Store,
    *,
    host: str,
    port: int,
    limits: Limits | None = None,
    origins: Sequence[str] = (),
) -> None:
    """Serve until told to end (SIGTERM, SIGINT); requests under way get `DRAIN_SECONDS`.

    `origins`: URLs whose pages may call from a browser.
    """

    async def main() -> None:
        app = assemble(meter, store, limits, origins)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=PromptProtocol,
            ws="none",
            lifespan="on",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
            backlog=4096,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        await Server(config, app.keeper).serve()

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
