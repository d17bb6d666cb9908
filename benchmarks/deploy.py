"""Deploy click to Active, against llama.cpp's own start: python -m benchmarks.deploy [ROUNDS]

Bare: a new Python process that loads the demo model with the same settings and answers one token.
Ours: `Endpoint.launch`, as a form or an API call does it, until the status is Active (all six phases, and one
real answered call), with the two workers that `up` starts. Rounds alternate, so that both meet the same machine.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import stage
from tests.wait import until

if TYPE_CHECKING:
    from accounts.models import Project, User
    from endpoints.spec import Spec

BAR = 1.3
BARE = """
import sys, urllib.request, xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.n_ctx, given.n_parallel = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
given.cpuparams.n_threads = given.cpuparams_batch.n_threads = int(sys.argv[4])
given.verbosity, given.fit_params, given.ui = 0, False, False
server = xllamacpp.Server(given)
asked = urllib.request.Request(
    server.listening_address + "/v1/chat/completions",
    b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}',
    {"Content-Type": "application/json"},
)
urllib.request.urlopen(asked).read()
print("answered", flush=True)
sys.stdin.read()
"""


def bare(model: str, context: int, parallel: int, threads: int) -> float:
    """Seconds from the start of the process to its first answered token."""
    began = time.perf_counter()
    command = [sys.executable, "-c", BARE, model, str(context), str(parallel), str(threads)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.perf_counter() - began
        if line.strip() != "answered":
            raise RuntimeError(f"the bare engine said {line!r} and ended with {process.wait(10)}")
        return took
    finally:
        process.kill()
        process.wait(10)


def workers(folder: Path) -> list[subprocess.Popen[bytes]]:
    """The control and the slow worker, as `up` starts them."""
    environ = os.environ | {"DJANGO_SETTINGS_MODULE": "tir_console.settings"}
    work = [sys.executable, "-m", "tir_console.up.work"]
    commands = [[*work, "control", "8", str(folder / "beat")], [*work, "slow", "2"]]
    return [subprocess.Popen(command, env=environ, start_new_session=True) for command in commands]


def ours(project: Project, spec: Spec, by: User) -> tuple[float, dict[str, float]]:
    """Seconds from the click to Active, and those of each phase."""
    from endpoints import bell  # noqa: PLC0415
    from endpoints.models import Endpoint  # noqa: PLC0415
    from endpoints.status import Status  # noqa: PLC0415

    with bell.valkey().pubsub(ignore_subscribe_messages=True) as ear:  # type: ignore[no-untyped-call]
        ear.psubscribe("*__group__endpoint.*")  # the doorbell that an open page hears
        began = time.perf_counter()
        endpoint = Endpoint.launch(project, spec, by=by)
        state = Endpoint.objects.filter(pk=endpoint.pk).values_list("status", flat=True)

        def settled() -> str | None:
            ear.get_message(timeout=0.5)
            status = state.get()
            return status if status in (Status.ACTIVE, Status.FAILED) else None

        ended = until(settled, seconds=60, every=0, what="Active")
        took = time.perf_counter() - began
    deployment = endpoint.latest_deployment
    assert deployment is not None
    if ended != Status.ACTIVE:
        raise RuntimeError(f"deployment failed: {deployment.reason} {deployment.message}\n{deployment.log_tail}")
    phases: dict[str, float] = {}
    for one in deployment.phases.all():
        if one.started_at is None or one.ended_at is None:
            raise RuntimeError(f"{one} has no times")
        phases[one.kind] = (one.ended_at - one.started_at).total_seconds()
    endpoint.delete_endpoint(by=None)
    until(lambda: not Endpoint.objects.living().exists(), seconds=60, every=0.05, what="deleted")
    return took, phases


def main(rounds: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the workers end with us
    stage()
    from django.conf import settings  # noqa: PLC0415

    from endpoints.regions import runtime_of  # noqa: PLC0415
    from endpoints.runtimes.process import ProcessRuntime  # noqa: PLC0415
    from tests import make  # noqa: PLC0415
    from tir_console.up import demo_model  # noqa: PLC0415

    demo_model.register()
    kind, runtime, spec, alice = make.instance_type(), runtime_of(make.region()), make.spec(), make.user("alice")
    project = make.project(owner=alice)
    assert isinstance(runtime, ProcessRuntime)
    model = next((Path(settings.DATA_DIR) / "models").rglob("*.gguf"))
    threads, parallel = runtime.threads(kind.vcpus * 1000), spec.llm.batch_size
    context = spec.llm.max_sequence_length * parallel
    with tempfile.TemporaryDirectory() as folder:
        started = workers(Path(folder))
        try:
            bare(str(model), context, parallel, threads)  # reads the file into memory
            ours(project, spec, alice)
            measured = [
                (bare(str(model), context, parallel, threads), *ours(project, spec, alice)) for _ in range(rounds)
            ]
        finally:
            for one in started:
                one.send_signal(signal.SIGTERM)
            for one in started:
                one.wait(30)
    bare_s = statistics.median(one for one, _, _ in measured)
    ours_s = statistics.median(one for _, one, _ in measured)
    phases = {name: round(statistics.median(each[name] for _, _, each in measured), 3) for name in measured[0][2]}
    answer = {
        "benchmark": "deploy",
        "rounds": rounds,
        "bare_s": round(bare_s, 3),
        "ours_s": round(ours_s, 3),
        "ratio": round(ours_s / bare_s, 3),
        "bar": BAR,
        "within": ours_s <= BAR * bare_s,
        "phases_s": phases,
        "all_bare_s": [round(one, 3) for one, _, _ in measured],
        "all_ours_s": [round(one, 3) for _, one, _ in measured],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
