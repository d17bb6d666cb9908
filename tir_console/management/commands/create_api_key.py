"""Make an API key from the command line: prints the key and nothing else."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.models import ApiKey, Project, Scope


class Command(BaseCommand):
    help = "Make an API key and print it. It can't be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", required=True, help="the project's slug")
        parser.add_argument("--scope", action="append", required=True, help="inference or manage; may be repeated")
        parser.add_argument("--name", default="command line", help="how the key is listed")
        parser.add_argument("--expires-in-days", type=int, help="days until it stops working")

    def handle(self, *_: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(f"No project is called {options['project']!r}. There are: {known}.")
        unknown = sorted(set(options["scope"]) - set(Scope.values))
        if unknown:
            raise CommandError(f"No scope is called {unknown[0]!r}. There are: {', '.join(Scope.values)}.")
        days = options["expires_in_days"]
        if days is not None and days < 1:
            raise CommandError("--expires-in-days must be 1 or more.")
        issued = ApiKey.issue(
            project,
            name=options["name"],
            scopes=options["scope"],
            by=None,
            expires_at=timezone.now() + timedelta(days=days) if days else None,
        )
        self.stdout.write(issued[1])
