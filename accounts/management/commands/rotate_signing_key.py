"""Let a new key sign tokens."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from accounts.models import SigningKey


class Command(BaseCommand):
    help = (
        "Make a new key for signing short-lived tokens. It is published at once and signs ten minutes later; "
        "tokens of the old one are believed until they end."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--now",
            action="store_true",
            help="the old keys became known: forget them, so that their tokens are refused within two seconds",
        )

    def handle(self, *args: Any, now: bool, **options: Any) -> None:
        made = SigningKey.rotate(at=timezone.now(), now=now)
        self.stdout.write(f"{made.kid} signs from {made.valid_from:%Y-%m-%d %H:%M:%S} UTC.")
