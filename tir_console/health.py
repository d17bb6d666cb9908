"""`/healthz`: 200 with JSON when this process can do its work, 503 with the reason before."""

from collections.abc import Callable

import redis
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse

from endpoints import bell

PATH = "/healthz"


class HealthMiddleware:
    """Answers before sessions, hosts and logins are looked at, so that a probe needs none of them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.migrated = False

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path != PATH:
            return self.get_response(request)
        problems = {"database": self._database(), "valkey": _valkey()}
        reasons = {name: reason for name, reason in problems.items() if reason}
        # Valkey carries only doorbells: without it pages are slower to change, and still true.
        ready = not problems["database"]
        body = {"status": "ok" if ready and not reasons else "degraded" if ready else "unavailable"}
        return JsonResponse(body | ({"reasons": reasons} if reasons else {}), status=200 if ready else 503)

    def _database(self) -> str:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            if not self.migrated:
                executor = MigrationExecutor(connection)
                missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
                self.migrated = not missing
                return f"{len(missing)} migrations are not applied; run manage.py migrate" if missing else ""
        except DatabaseError as problem:
            return f"PostgreSQL: {problem}".strip()
        return ""


def _valkey() -> str:
    try:
        bell.valkey().ping()
    except redis.RedisError as problem:
        return f"Valkey: {problem}".strip()
    return ""
