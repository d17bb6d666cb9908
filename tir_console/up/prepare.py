"""The part of `up` that needs Django: migrations, catalogue, login link. Runs as a process of its own and ends,
so that the launcher stays small. Writes one JSON object to its standard output; the rest goes to its log.
"""

from __future__ import annotations

import json
import os
import sys
import time

import django
from django.db import DatabaseError, OperationalError, connection

DATABASE_SECONDS = 30.0


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
    django.setup()
    problem = _wait_for_database(DATABASE_SECONDS)
    if problem:
        print(problem, file=sys.stderr)  # noqa: T201
        return 1
    migrated = _migrate()
    from tir_console.up import catalogue  # noqa: PLC0415  models need the setup above

    catalogue.load()
    json.dump({"migrated": migrated, "login": catalogue.login_link(catalogue.load_demo())}, sys.stdout)
    return 0


def _wait_for_database(seconds: float) -> str:
    """Empty once it answers, else what it said last."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.ensure_connection()
        except OperationalError as problem:
            said = str(problem).strip().splitlines()
            if time.monotonic() > deadline:
                return f"PostgreSQL does not answer at DATABASE_URL: {said[-1] if said else problem!r}"
            time.sleep(0.05)
        except DatabaseError as problem:
            return f"PostgreSQL refuses at DATABASE_URL: {problem}"
        else:
            return ""


def _migrate() -> bool:
    """Apply what is missing; True if something was."""
    from django.core.management import call_command  # noqa: PLC0415
    from django.db.migrations.executor import MigrationExecutor  # noqa: PLC0415

    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return False
    call_command("migrate", interactive=False, verbosity=0, stdout=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main())
