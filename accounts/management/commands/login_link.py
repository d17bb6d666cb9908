"""Print a link that logs a person in once: for whoever forgot a password where no mail is sent."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from accounts import links
from accounts.models import User


class Command(BaseCommand):
    help = "Print a link that logs EMAIL in once, within 15 minutes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")

    def handle(self, *args: Any, email: str, **options: Any) -> None:
        user = User.objects.filter(email=email.lower(), is_active=True).first()
        if user is None:
            raise CommandError(f"Nobody has an active account with the address {email}.")
        self.stdout.write(settings.CONSOLE_URL + reverse("accounts:link", args=[links.make(user)]))
