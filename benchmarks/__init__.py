"""Benchmarks: each module measures one promise and prints one JSON object as its last line."""

from __future__ import annotations

import os


def stage() -> None:
    """A migrated database and a Valkey of this process's own, as the tests have them, with the catalogue."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    import django  # noqa: PLC0415  after the settings are named

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415

    call_command("migrate", verbosity=0)
