"""What each process of a freshly started console keeps in memory: python -m benchmarks.memory [REQUESTS]

PSS counts a page that several processes share by its share, so a column of it adds up; RSS counts it in full.
Measured once everything is up and the demo model serves, and again after so many requests through the gateway
and some pages.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

MIB = 2**20
CALLERS = 8
ASK = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
Sizes = dict[str, tuple[float, float]]  # name → PSS, RSS in MiB


def sizes(groups: dict[str, list[int]]) -> Sizes:
    return {name: _of(pids) for name, pids in groups.items()}


def _of(pids: list[int]) -> tuple[float, float]:
    found = [psutil.Process(pid).memory_full_info() for pid in pids]
    return round(sum(one.pss for one in found) / MIB, 1), round(sum(one.rss for one in found) / MIB, 1)


def grouped(named: dict[str, int], instance: list[int], launcher: int) -> dict[str, list[int]]:
    """Whose memory to add up: PostgreSQL has a process for each connection, an instance two."""
    groups = {name: [pid] for name, pid in named.items()}
    groups["postgres"] += [one.pid for one in psutil.Process(named["postgres"]).children()]
    return groups | {"up": [launcher], "instance": instance}


def main(requests: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django  # noqa: PLC0415

    django.setup()
    from endpoints.runtimes.process import ProcessRuntime  # noqa: PLC0415
    from endpoints.runtimes.scan import live  # noqa: PLC0415
    from tests.hub import Hub  # noqa: PLC0415
    from tests.stack.whole import Settled, Stack  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="tir-memory-"))
    house = Settled(folder / "data", variables={"CPU_OVERCOMMIT": "8"})
    house.start("manage.py", "up", "--no-input")
    try:
        house.wait_ready(seconds=120)
        stack = Stack(house, Hub({}))
        stack.deploy("memory")
        engines = live(ProcessRuntime(house.data).data)
        assert house.process
        instance = [pid for one in engines.values() for pid in (*one.engines, one.supervisor) if pid]
        fresh = sizes(grouped(house.processes(), instance, house.process.pid))
        traffic(stack, requests)
        used = sizes(grouped(house.processes(), instance, house.process.pid))
    finally:
        house.run("manage.py", "up", "--stop-all", "--no-input")
        house.clean()
        shutil.rmtree(folder, ignore_errors=True)
    show(fresh, used, requests)


def traffic(stack: object, requests: int) -> None:
    """So many calls through the gateway, and a twentieth of that in pages."""
    from tests.stack.whole import Stack  # noqa: PLC0415

    assert isinstance(stack, Stack)
    key = stack.key("inference")
    url = f"{stack.gateway_url}/e/memory/v1/chat/completions"
    bearer = {"Authorization": f"Bearer {key}"}
    with httpx.Client(headers=bearer, trust_env=False, timeout=60) as caller, ThreadPoolExecutor(CALLERS) as pool:
        codes = list(pool.map(lambda _: caller.post(url, json=ASK).status_code, range(requests)))
    if set(codes) != {200}:
        raise RuntimeError(f"calls answered {set(codes)}")
    with stack.browser() as browser:
        for _ in range(requests // 20):
            for path in ("/projects/demo/endpoints/", "/projects/demo/endpoints/memory/"):
                browser.get(path).raise_for_status()


def show(fresh: Sizes, used: Sizes, requests: int) -> None:
    print(
        f"{'MiB':12}{'PSS fresh':>12}{'RSS fresh':>12}{'PSS after':>12}{'RSS after':>12}   ({requests} requests)"
    )
    for name in fresh:
        print(f"{name:12}" + "".join(f"{size:>12}" for size in (*fresh[name], *used[name])))
    ours = [name for name in fresh if name != "instance"]
    total = {"fresh": sum(fresh[name][0] for name in ours), "after": sum(used[name][0] for name in ours)}
    print(f"{'without the instance':24}{total['fresh']:.0f} → {total['after']:.0f} MiB PSS")
    answer = {
        "benchmark": "memory",
        "requests": requests,
        "pss_mib": {name: {"fresh": fresh[name][0], "after": used[name][0]} for name in fresh},
        "rss_mib": {name: {"fresh": fresh[name][1], "after": used[name][1]} for name in fresh},
        "total_pss_mib": {name: round(size, 1) for name, size in total.items()},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
