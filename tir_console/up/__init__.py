"""`manage.py up`: the whole console on one machine.

The launcher itself never loads Django: it starts the services first, completes the environment, and leaves the
rest to the processes it watches. `main` is its door; what it does in which order stands in `launch`.
"""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Run the command line; the exit status."""
    from tir_console.up import launch  # noqa: PLC0415  so that a module of ours can be used alone

    return launch.main(arguments)
