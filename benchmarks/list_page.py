"""The page that lists endpoints, with ten and with a thousand of them: python -m benchmarks.list_page [ENDPOINTS]

Queries are counted through Django's test client; times are the medians of twenty requests through it, and of
twenty through a real daphne, as a browser that is logged in would ask.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import httpx

from benchmarks import stage
from benchmarks.daphned import daphne

BAR_MS = 150.0
ROUNDS = 20


def median_ms(ask: Callable[[], int]) -> float:
    """Of so many requests after a first; each must answer 200."""
    taken = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        status = ask()
        taken.append(1000 * (time.perf_counter() - began))
        if status != 200:
            raise RuntimeError(f"the page answered {status}")
    return round(statistics.median(taken[1:]), 1)


def main(most: int) -> None:
    stage()
    from django.conf import settings  # noqa: PLC0415
    from django.db import connection  # noqa: PLC0415
    from django.db.models import Value  # noqa: PLC0415
    from django.db.models.functions import Concat  # noqa: PLC0415
    from django.test import Client  # noqa: PLC0415
    from django.test.utils import CaptureQueriesContext  # noqa: PLC0415

    from endpoints.models import Endpoint  # noqa: PLC0415
    from tests import crowd, make  # noqa: PLC0415
    from tests.runtimes import InstantRuntime  # noqa: PLC0415

    runtime, alice = InstantRuntime(), make.user("alice")
    client = Client(HTTP_HOST="127.0.0.1")
    client.force_login(alice)
    cookie = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"}
    measured: dict[int, dict[str, float]] = {}
    with daphne() as server, httpx.Client(base_url=server.url, headers=cookie, trust_env=False) as browser:
        for count in (10, most):
            Endpoint.objects.update(name=Concat(Value("few-"), "name"))  # names are unique in a region
            crowd.serving(runtime, count, 1)
            path = f"/projects/{Endpoint.objects.latest('pk').project.slug}/endpoints/"
            for name, url in (("page", path), ("rows", f"{path}?part=rows")):
                client.get(url)
                with CaptureQueriesContext(connection) as queries:
                    client.get(url)
                measured.setdefault(count, {}).update(
                    {
                        f"{name}_queries": len(queries),
                        f"{name}_django_ms": median_ms(lambda url=url: client.get(url).status_code),  # type: ignore[misc]
                        f"{name}_daphne_ms": median_ms(lambda url=url: browser.get(url).status_code),  # type: ignore[misc]
                    }
                )
    print(f"{'':24}{10:>10}{most:>10}  endpoints")
    for row in measured[10]:
        print(f"{row:24}{measured[10][row]:>10}{measured[most][row]:>10}")
    few, many = measured[10], measured[most]
    answer = {
        "benchmark": "list_page",
        "endpoints": most,
        **many,
        "few": few,
        "bar_ms": BAR_MS,
        "constant_queries": all(few[name] == many[name] for name in few if name.endswith("queries")),
        "within": many["page_daphne_ms"] <= BAR_MS,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
