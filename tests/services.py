"""Real PostgreSQL and Valkey, started as `up` starts them, unless DATABASE_URL and VALKEY_URL name others."""

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tir_console.up.folder import Folder
from tir_console.up.postgres import Postgres
from tir_console.up.program import Program
from tir_console.up.valkey import Valkey

START_SECONDS = 120
# What a crash of this machine would lose is of no use to anybody.
CARELESS = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


def _start(program: Program) -> None:
    """Start it, end it with the tests, and wait until it is ready."""
    process = subprocess.Popen(
        program.command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=program.user,
        group=program.user,
        extra_groups=[] if program.user else None,
        start_new_session=True,
        preexec_fn=program.leash(),  # noqa: PLW1509  calls prctl and nothing else
    )
    atexit.register(_end, process, program)
    deadline = time.monotonic() + START_SECONDS
    while not program.ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{program.name} does not start: {' '.join(program.command)}")
        time.sleep(0.02)


def _end(process: "subprocess.Popen[bytes]", program: Program) -> None:
    process.send_signal(program.hurry)
    process.wait(10)


def _provide() -> None:
    folder = Folder.open(Path(tempfile.mkdtemp(prefix="tir-test-")))
    atexit.register(shutil.rmtree, folder.path, ignore_errors=True)
    os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 40)
    os.environ.setdefault("DATA_DIR", str(folder.path))
    os.environ.setdefault("SECURE_SSL_REDIRECT", "0")
    if "DATABASE_URL" not in os.environ:
        postgres = Postgres(folder)
        postgres.prepare()
        program = postgres.program()
        _start(replace(program, command=(*program.command, *CARELESS)))
        os.environ["DATABASE_URL"] = postgres.url
    if "VALKEY_URL" not in os.environ:
        valkey = Valkey(folder)
        _start(valkey.program())
        os.environ["VALKEY_URL"] = valkey.url


_provide()
