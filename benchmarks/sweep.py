"""A sweep of 1,000 endpoints with 5,000 instances in a steady state: python -m benchmarks.sweep [SWEEPS]

The runtime is a fake in memory and every probe answers at once, so what is measured is ours: loading the facts,
planning, and the queries it takes. One change is made at the end, to show that the sweep does see one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import timedelta

from benchmarks import stage

ENDPOINTS, INSTANCES = 1_000, 5
BAR = 2.0  # seconds: a sweep is due this often


def main(sweeps: int) -> None:
    stage()
    from django.db import connection  # noqa: PLC0415
    from django.test.utils import CaptureQueriesContext  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    from endpoints import sweep  # noqa: PLC0415
    from endpoints.planner import Probe  # noqa: PLC0415
    from endpoints.regions import replace_runtime  # noqa: PLC0415
    from tests import crowd  # noqa: PLC0415
    from tests.runtimes import InstantRuntime  # noqa: PLC0415

    runtime = InstantRuntime()
    replace_runtime("local", runtime)
    names = crowd.serving(runtime, ENDPOINTS, INSTANCES)
    took, queries, woken = [], [], 0
    at = timezone.now()
    for turn in range(sweeps + 1):
        with CaptureQueriesContext(connection) as captured:
            began = time.perf_counter()
            woken += len(
                sweep.sweep(
                    at=at + timedelta(seconds=2 * turn),
                    turn=turn,
                    wake=lambda _: None,
                    prober=lambda _, clock: Probe(clock()),
                )
            )
            took.append(time.perf_counter() - began)
        queries.append([one["sql"] for one in captured.captured_queries])
    writes = [sql for each in queries for sql in each if sql.split()[0] in ("UPDATE", "INSERT", "DELETE")]
    runtime.kill(names[0])
    seen = sweep.sweep(wake=lambda _: None, prober=lambda _, clock: Probe(clock()))
    measured = took[1:]  # the first one also opens connections
    answer = {
        "benchmark": "sweep",
        "endpoints": ENDPOINTS,
        "instances": ENDPOINTS * INSTANCES,
        "sweeps": sweeps,
        "median_s": round(statistics.median(measured), 3),
        "worst_s": round(max(measured), 3),
        "bar_s": BAR,
        "within": statistics.median(measured) < BAR and not writes and not woken,
        "queries": max(len(each) for each in queries),
        "writes": len(writes),
        "woken_in_steady_state": woken,
        "woken_after_one_kill": len(seen),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
