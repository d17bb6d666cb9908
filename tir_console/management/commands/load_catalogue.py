"""Load instance types, prices and the local region; with --demo also the demo project and model."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from tir_console.up import catalogue


class Command(BaseCommand):
    help = "Add the instance types, prices and region that are missing. Changes nothing that is there."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--demo", action="store_true", help="add the demo project, account and model too")

    def handle(self, *_: Any, **options: Any) -> None:
        catalogue.load()
        if options["demo"]:
            catalogue.load_demo()
