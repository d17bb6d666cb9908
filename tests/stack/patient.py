"""`python -m tests.stack.patient`: a gateway as it is, but that it waits longer for the count that all share. On a
machine which is busy with other tests 0.2 s go by, after which each gateway counts alone."""

import os
import sys
from functools import partial

import django

SECONDS = 30.0


def run() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
    django.setup()
    from gateway import keeper, store  # noqa: PLC0415 (settings and models exist only now)
    from gateway.__main__ import main  # noqa: PLC0415
    from gateway.quota import Limiter  # noqa: PLC0415
    from gateway.shared import SharedCount  # noqa: PLC0415

    vars(keeper)["Limiter"] = partial(Limiter, patience=SECONDS)
    vars(store)["SharedCount"] = partial(SharedCount, seconds=SECONDS)
    return main()


if __name__ == "__main__":
    sys.exit(run())
