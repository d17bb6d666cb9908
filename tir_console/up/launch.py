"""What `up` does, in order. Everything here can be interrupted: a first Ctrl-C or SIGTERM ends our processes in
order, a second one at once. Instances are not ours to end: the next `up` adopts them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from tir_console.up import environment, freshness, ports, processes, roster
from tir_console.up.folder import Folder
from tir_console.up.options import BASE_DIR, Options, add_arguments
from tir_console.up.output import Terminal
from tir_console.up.postgres import Postgres
from tir_console.up.program import Program
from tir_console.up.supervisor import Supervisor, base_environment
from tir_console.up.trouble import Trouble
from tir_console.up.valkey import Valkey

SERVICE_SECONDS, DOOR_SECONDS = 60.0, 60.0


@dataclass(frozen=True)
class Cast:
    """The processes to run; tests give others. `prepare` is run once and says what it did as JSON."""

    doors: Callable[[Options], list[Program]] = processes.doors
    workers: Callable[[Folder], list[Program]] = processes.workers
    prepare: Program = field(
        default_factory=lambda: Program("prepare", (sys.executable, "-m", "tir_console.up.prepare"))
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="manage.py up", description="Run the whole console on this machine.")
    add_arguments(parser)
    return command(parser.parse_args(arguments))


def command(arguments: argparse.Namespace) -> int:
    """The exit status: 0 after an orderly end, 1 with one line on standard error if it can't run."""
    try:
        options = Options.read(arguments, os.environ)
        if options.stop_all:
            from tir_console.up.stop_all import stop_all  # noqa: PLC0415  brings the runtimes

            return stop_all(options)
        return asyncio.run(Launch(options).run())
    except Trouble as trouble:
        print(f"up: {trouble}", file=sys.stderr)  # noqa: T201
        return 1


class Launch:
    def __init__(self, options: Options, cast: Cast | None = None) -> None:
        self.options = options
        self.cast = cast or Cast()
        self.terminal = Terminal()
        self.interrupted = asyncio.Event()

    async def run(self) -> int:
        folder = Folder.open(self.options.data_dir)
        with folder.held():
            for left in roster.end_leftovers(folder):
                self.terminal.say(f"ended {left}, which a killed `up` had left running")
            ports.require_free(self.options.console, what="console")
            ports.require_free(self.options.gateway, what="gateway")
            supervisor = Supervisor(
                folder.logs, roster.Roster(folder), self.terminal, base_environment(os.environ), BASE_DIR
            )
            self._listen(supervisor)
            try:
                await self._until_interrupted(self._start(supervisor, folder))
            finally:
                await self._stop(supervisor)
                environment.withdraw(folder)
        return 0

    def _listen(self, supervisor: Supervisor) -> None:
        def interrupt() -> None:
            if self.interrupted.is_set():
                supervisor.hurry.set()
            else:
                self.terminal.say("stopping; once more to hurry. Instances go on running.")
            self.interrupted.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, interrupt)

    async def _until_interrupted(self, starting: Coroutine[None, None, None]) -> None:
        """Start, then stay until told to end; an end that comes first cuts the start short."""
        interrupted = asyncio.create_task(self.interrupted.wait())
        start = asyncio.create_task(starting)
        await asyncio.wait({start, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await interrupted
        else:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)

    async def _start(self, supervisor: Supervisor, folder: Folder) -> None:
        settings = await self._services(supervisor, folder)
        supervisor.environment |= settings
        environment.publish(folder, settings)
        print_ = freshness.fingerprint(settings["DATABASE_URL"])
        doors = self.cast.doors(self.options)
        if freshness.is_fresh(folder, print_):
            await self._open(supervisor, doors)
            said = await self._prepare(supervisor)
        else:
            self.terminal.say("preparing the database")
            said = await self._prepare(supervisor)
            await self._open(supervisor, doors)
        freshness.remember(folder, print_)
        for worker in self.cast.workers(folder):
            await supervisor.start(worker)
        self._welcome(said, settings)

    async def _services(self, supervisor: Supervisor, folder: Folder) -> dict[str, str]:
        """Start what no URL names; the variables that lead to all of it."""
        database_url, valkey_url = self.options.database_url, self.options.valkey_url
        started = []
        if not valkey_url:
            valkey = Valkey(folder)
            valkey_url = valkey.url
            await supervisor.start(valkey.program())
            started.append("valkey")
        if not database_url:
            postgres = Postgres(folder)
            database_url = postgres.url
            await asyncio.to_thread(postgres.prepare)
            await supervisor.start(postgres.program())
            started.append("postgres")
        await asyncio.gather(*(supervisor.ready(name, seconds=SERVICE_SECONDS) for name in started))
        return environment.settings_of(self.options, folder, database_url=database_url, valkey_url=valkey_url)

    async def _prepare(self, supervisor: Supervisor) -> dict[str, str]:
        said = await supervisor.run(self.cast.prepare)
        try:
            answer: dict[str, str] = json.loads(said)
        except ValueError:
            raise Trouble(f"Preparing the database answered something else: {said[-200:]!r}") from None
        return answer

    async def _open(self, supervisor: Supervisor, doors: list[Program]) -> None:
        for door in doors:
            await supervisor.start(door)
        await asyncio.gather(*(supervisor.ready(door.name, seconds=DOOR_SECONDS) for door in doors))

    def _welcome(self, said: dict[str, str], settings: dict[str, str]) -> None:
        lines = [
            f"Console  {settings['CONSOLE_URL']}",
            f"Gateway  {settings['GATEWAY_URL']}",
            f"Log in   {settings['CONSOLE_URL']}{said.get('login', '')}  (works once, for 15 minutes)",
            f"Data     {settings['DATA_DIR']}",
        ]
        print("\n" + "\n".join(lines) + "\n", flush=True)  # noqa: T201

    async def _stop(self, supervisor: Supervisor) -> None:
        """Doors first, so that nobody is let in; what they lean on last."""
        known = [name for group in processes.STOPPING for name in group]
        others = tuple(name for name in supervisor.kept if name not in known)
        for group in (others, *processes.STOPPING):
            await asyncio.gather(*(supervisor.stop(name) for name in group))
