"""What lasts: python -m benchmarks.endurance [--minutes 10] [--streams 1000]

One gateway process before the mock engine of `benchmarks.doors`, a fresh one for each part:

- how soon the engine hears of a caller's hang-up: before the first byte, in mid-stream, while JSON is waited for
- what one caller costs who stops reading a stream of 100 MB
- a thousand streams with an event every 100 ms, and a slow reader among them: who got all, and how late
- memory over minutes of callers who come, stay, leave halfway, send what is no request, read slowly

It takes two minutes more than `--minutes`. Memory is the proportional set size. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.doors.native import build
from benchmarks.gateway import cores
from benchmarks.lasting import crowd
from benchmarks.lasting.churn import LEAST_MINUTES, churn
from benchmarks.lasting.ground import Cores, standing
from benchmarks.lasting.hangups import STATES, hang_ups
from benchmarks.lasting.readers import stalled
from benchmarks.lasting.report import Lasted, rows, summary

MOST_STREAMS = 1000  # what the load generator takes, and a few


def run(minutes: float, streams: int) -> Lasted:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tir-bench-")))
        tools, where = build(folder), Cores(*cores())
        with standing(tools, where, folder / "hang-ups") as ground:
            left = {state: hang_ups(ground, state) for state in STATES}
        tell("hang-ups done")
        with standing(tools, where, folder / "stalled") as ground:
            one = stalled(ground)
        tell("the stalled reader done")
        with standing(tools, where, folder / "crowd", crowd.PACE_US) as ground:
            many = crowd.crowd(ground, streams)
        tell(f"{streams} streams done")
        with standing(tools, where, folder / "churn") as ground:
            long = churn(ground, minutes)
        return Lasted(left, one, many, streams, long)


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance")
    parser.add_argument("--minutes", type=float, default=10, help="of callers who come and go (10, at least 1.5)")
    parser.add_argument("--streams", type=int, default=1000, help="at once (1000)")
    asked = parser.parse_args()
    if not LEAST_MINUTES <= asked.minutes <= 24 * 60:
        parser.error(f"--minutes: from {LEAST_MINUTES} to a day's 1440")
    if not 1 <= asked.streams <= MOST_STREAMS:
        parser.error(f"--streams: from 1 to {MOST_STREAMS}")
    if sys.platform != "linux":
        print(json.dumps({"benchmark": "endurance", "bars": None, "reason": "it reads /proc, so Linux only"}))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the gateway ends with us
    lasted = run(asked.minutes, asked.streams)
    print("\n".join(rows(lasted)))
    print(json.dumps(summary(lasted, load=os.getloadavg()[0])))


if __name__ == "__main__":
    main()
