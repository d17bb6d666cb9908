"""Keeps programs running: starts them, starts them again when they die, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tir_console.up.output import Log, Terminal
from tir_console.up.program import Program
from tir_console.up.roster import Roster, kill_group
from tir_console.up.trouble import Trouble

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds before a dead program is started again; doubles each time
CALM = 60.0  # seconds of life after which a death counts as the first again
POLL = 0.03
OURS = "[up]"  # begins our lines in a program's log
GIVE_UP_AFTER = 3  # deaths while its readiness is waited for; a program that nobody waits for is never given up


class Kept:
    """One program, and the process that is it at present."""

    def __init__(self, program: Program, log: Log) -> None:
        self.program = program
        self.log = log
        self.process: asyncio.subprocess.Process | None = None
        self.task: asyncio.Task[None] | None = None
        self.stopping = False
        self.deaths = 0
        self.wake = asyncio.Event()

    def last_line(self) -> str:
        """Its own last word, not ours about it."""
        words = (line for line in reversed(self.log.last) if not line.startswith(OURS))
        return next(words, "it wrote nothing")

    def signal(self, number: signal.Signals) -> None:
        if self.process and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """`environment` is what every program gets; fill it before the programs that need it are started."""

    def __init__(self, logs: Path, roster: Roster, terminal: Terminal, environment: dict[str, str], cwd: Path):
        self.logs = logs
        self.roster = roster
        self.terminal = terminal
        self.environment = environment
        self.cwd = cwd
        self.kept: dict[str, Kept] = {}
        self.hurry = asyncio.Event()

    async def start(self, program: Program) -> Kept:
        """Start and keep it; returns as soon as the process exists. Trouble if it can't be started at all."""
        log = Log(self.logs, program.name, self.terminal if program.shown else None)
        kept = self.kept[program.name] = Kept(program, log)
        await self._spawn(kept)
        kept.task = asyncio.create_task(self._keep(kept))
        return kept

    async def ready(self, name: str, *, seconds: float) -> None:
        """Wait until it says that it is ready. Trouble, with its last line, if it dies or takes too long."""
        kept = self.kept[name]
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(kept.program.ready):
            if kept.deaths >= GIVE_UP_AFTER or (kept.task and kept.task.done()):
                raise Trouble(f"The {name} does not start. Its last line: {kept.last_line()}")
            if time.monotonic() > deadline:
                raise Trouble(f"The {name} was not ready in {seconds:.0f} s. Its last line: {kept.last_line()}")
            await asyncio.sleep(POLL)

    async def stop(self, name: str) -> None:
        """Ask it to end, wait for its patience (not at all in a hurry), kill what is left."""
        kept = self.kept.pop(name, None)
        if kept is None or kept.task is None:
            return
        kept.stopping = True
        kept.wake.set()
        kept.signal(kept.program.hurry if self.hurry.is_set() else kept.program.stop)
        if not await self._ended(kept, kept.program.patience):
            kept.signal(kept.program.hurry)
            if not await self._ended(kept, 2.0, heed_hurry=False) and kept.process:
                kill_group(kept.process.pid)
        await kept.task
        kept.log.close()
        self.roster.remove(name)

    async def run(self, program: Program) -> str:
        """Run it once, to its end, and answer what it wrote to its standard output. Trouble if it fails."""
        log = Log(self.logs, program.name, self.terminal if program.shown else None)
        process = await self._process(program, self.environment, split=True)
        assert process.stdout  # noqa: S101  both were asked for
        assert process.stderr  # noqa: S101
        try:
            said, _ = await asyncio.gather(process.stdout.read(), self._pump(process.stderr, log))
            code = await process.wait()
        except asyncio.CancelledError:
            kill_group(process.pid)
            await process.wait()
            raise
        log.close()
        if code:
            raise Trouble(f"{program.name} failed. Its last line: {log.last[-1] if log.last else code}")
        return said.decode()

    async def _ended(self, kept: Kept, seconds: float, *, heed_hurry: bool = True) -> bool:
        assert kept.task  # noqa: S101
        waits: set[asyncio.Task[object]] = {kept.task}
        hurry = asyncio.create_task(self.hurry.wait())
        if heed_hurry and not self.hurry.is_set():
            waits.add(hurry)
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        return kept.task.done()

    async def _keep(self, kept: Kept) -> None:
        while not kept.stopping:
            process, began = kept.process, time.monotonic()
            if process is None:
                return
            assert process.stdout  # noqa: S101
            pump = asyncio.create_task(self._pump(process.stdout, kept.log))
            code = await process.wait()
            kill_group(process.pid)
            await pump
            kept.log.flush()
            if kept.stopping:
                return
            kept.deaths = 1 if time.monotonic() - began > CALM else kept.deaths + 1
            await self._again(kept, code)

    async def _again(self, kept: Kept, code: int) -> None:
        """Start it again after a while, for as long as it takes; what stands in the way is said each time."""
        why = _ending(code)
        while not kept.stopping:
            delay = min(FIRST_DELAY * 2 ** (kept.deaths - 1), LONGEST_DELAY)
            self.terminal.say(f"the {kept.program.name} {why}; it starts again in {delay:g} s")
            kept.log.line(f"{OURS} {why}; starts again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(kept.wake.wait(), delay)
            if kept.stopping:
                return
            try:
                await self._spawn(kept)
            except Trouble as problem:
                kept.deaths += 1
                why = f"did not start ({problem})"
            else:
                return

    async def _spawn(self, kept: Kept) -> None:
        kept.process = await self._process(kept.program, self.environment)
        self.roster.add(kept.program.name, kept.process.pid, kept.program.stop)

    async def _process(
        self, program: Program, environment: Mapping[str, str], *, split: bool = False
    ) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *program.command,
                cwd="/" if program.user else self.cwd,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE if split else asyncio.subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                preexec_fn=program.leash(),  # calls prctl and nothing else
                user=program.user,
                group=program.user,
                extra_groups=[] if program.user else None,
            )
        except OSError as problem:
            raise Trouble(f"{program.name} can't be started: {problem}") from None

    async def _pump(self, stream: asyncio.StreamReader, log: Log) -> None:
        while data := await stream.read(65536):
            log.feed(data)


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended by itself with status {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every process of ours gets beside its settings."""
    kept = dict(environ)
    kept.setdefault("PYTHONUNBUFFERED", "1")
    kept.setdefault("MALLOC_ARENA_MAX", "2")  # glibc would else keep memory for each of many threads
    kept.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # every start would compile a thousand modules anew, in each process
    kept["PATH"] = os.pathsep.join(part for part in (kept.get("PATH"), os.defpath) if part)
    return kept
