"""`manage.py up`, as the help lists it. manage.py goes to the launcher before Django is loaded."""

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from tir_console.up.launch import command
from tir_console.up.options import add_arguments


class Command(BaseCommand):
    help = "Run the whole console on this machine: services, pages, gateway and workers."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *_: Any, **options: Any) -> None:
        sys.exit(command(argparse.Namespace(**options)))
