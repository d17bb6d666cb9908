"""Our gateway beside its peers, in front of one mock engine: python -m benchmarks.gateway [--quick] [--only NAME…]

Doors: ours (also with a key that has limits), nginx as a plain reverse proxy, vllm-router, envoy, LiteLLM. A door
has one core, the engine and the load generator (both in C) share another; doors take turns, three rounds, medians.
JSON at 1, 16, 64 connections; 64 streams with an event every 10 ms. Peers from PyPI are installed once, under the
user's cache folder. The engine is measured without a door first: that is what "added" is over, and it shows how
far the harness could go.

`--quick` takes under a minute and leaves LiteLLM and limits out; all of it takes about seven. Linux only: it pins
cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.doors.native import build, mock_engine
from benchmarks.doors.peers import DOORS
from benchmarks.doors.report import compared, notes, summary, table
from benchmarks.doors.rounds import FULL, QUICK, Bench, Door, Pace

SLOW = {"litellm", "ours_limited"}


def cores() -> tuple[int, int]:
    """The door's and the harness's; the same one when this process may use only one, which is said."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) == 1:
        print("Only one core: door, engine and load generator share it, so rates are far too low.", flush=True)
    return mine[0], mine[-1]


def run(names: Sequence[str], pace: Pace) -> tuple[Door, list[Door]]:
    """Every named door, after all rounds; the engine without one first."""
    door_core, load_core = cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tir-bench-")))
        tools = build(folder)
        engine = stack.enter_context(mock_engine(tools, load_core))
        bench = Bench(tools, engine, door_core, load_core, pace)
        direct, doors = bench.direct(), []
        for name in names:
            place = folder / name
            place.mkdir()
            doors.append(stack.enter_context(bench.opened(name, place)))
            tell(f"{name}: {doors[-1].reason or 'open'}")
        for turn in range(pace.rounds):
            first = turn % len(doors)  # nobody comes always after the same one
            bench.turn(direct, [*doors[first:], *doors[:first]])
            tell(f"round {turn + 1} of {pace.rounds} done")
    return direct, doors


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway")
    parser.add_argument("--quick", action="store_true", help="under a minute, without LiteLLM")
    parser.add_argument("--only", nargs="+", choices=list(DOORS), default=[], help="these peers beside ours")
    asked = parser.parse_args()
    if sys.platform != "linux":
        left = "this benchmark pins processes to cores and reads their clocks, which it can on Linux only"
        print(json.dumps({"benchmark": "gateway", "ours": None, "ours_reason": left}))
        return
    wanted = {"ours", *asked.only} if asked.only else set(DOORS) - (SLOW if asked.quick else set())
    why = "not asked for" if asked.only else "left out by --quick"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # doors end with us
    direct, doors = run([name for name in DOORS if name in wanted], QUICK if asked.quick else FULL)
    print("\n".join([*table([direct, *doors]), *compared(doors), *notes(doors)]))
    print(json.dumps(summary(direct, doors, {name: why for name in DOORS if name not in wanted})))


if __name__ == "__main__":
    main()
