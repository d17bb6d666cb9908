"""A running console that a test may hurt: its processes, its instances, what it wrote down, and its traffic."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg

from endpoints.runtimes.base import Observed, Phase
from endpoints.runtimes.process import ProcessRuntime
from endpoints.runtimes.scan import Live, live
from tests.failures.traffic import Traffic
from tests.stack.whole import SESSION, Stack
from tests.wait import until

MAIN = "main"  # the endpoint that traffic goes to
QUERIES = {
    "owner": "SELECT id FROM endpoints_endpoint WHERE name = %(endpoint)s ORDER BY id DESC LIMIT 1",
    "live": """SELECT i.name, i.state FROM endpoints_instance i
        JOIN endpoints_endpoint e ON e.id = i.endpoint_id
        WHERE e.name = %(endpoint)s AND i.ended_at IS NULL AND e.status <> 'deleted'""",
    "instances": """SELECT i.name, i.state, i.reason FROM endpoints_instance i
        JOIN endpoints_endpoint e ON e.id = i.endpoint_id WHERE e.name = %(endpoint)s""",
    "phases": """SELECT p.kind, p.state, p.bytes_done FROM endpoints_phase p
        JOIN endpoints_deployment d ON d.id = p.deployment_id
        JOIN endpoints_endpoint e ON e.id = d.endpoint_id WHERE e.name = %(endpoint)s""",
    "metered": """SELECT coalesce(sum(succeeded), 0)::int AS succeeded FROM monitoring_traffic t
        JOIN endpoints_endpoint e ON e.id = t.endpoint_id WHERE e.name = %(endpoint)s""",
    "billed": """SELECT coalesce(sum(requests), 0)::int AS succeeded FROM monitoring_keytraffic t
        JOIN endpoints_endpoint e ON e.id = t.endpoint_id
        WHERE e.name = %(endpoint)s AND status_class = '2xx'""",
}


@dataclass
class Hurt(Stack):
    # ── its life ────────────────────────────────────────────────────────────────────────────────
    def up(self) -> None:
        """Have it run, with the endpoint that traffic goes to."""
        if self.house.process is None or self.house.process.poll() is not None:
            self.house.start("manage.py", "up", "--no-input")
            self.house.wait_ready(seconds=120)
        if MAIN not in self.names():
            # Two at the least and at the most: how many there should be is not for the load to say here.
            self.deploy(MAIN, scaling={"min_instances": 2, "max_instances": 2})
        self.forgive()
        self.whole(seconds=120)

    def forgive(self) -> None:
        """Open the crash budget anew: what earlier tests did to the endpoint is not this one's business."""
        with self.database() as database:
            database.execute("UPDATE endpoints_endpoint SET wished_at = now() WHERE name = %s", [MAIN])

    def whole(self, *, seconds: float) -> None:
        """Wait until the endpoint serves with all it should have and the gateway has said what it counted."""
        until(lambda: self.is_whole(MAIN, 2), seconds=seconds, every=0.1, what=f"{MAIN} to be whole")

    def is_whole(self, name: str, instances: int) -> bool:
        """Active by its own word, and so it is: rows and processes are what they should be."""
        try:
            shown = self.api("GET", f"endpoints/{name}").json()
            running, live_rows = self.running(name), self.rows("live", endpoint=name)
        except (httpx.HTTPError, psycopg.OperationalError):  # what it stands on is just coming back
            return False
        ready = {str(row["name"]) for row in live_rows if row["state"] == "ready"}
        return bool(
            shown.get("status") == "active" and len(running) == instances and ready == set(running) and
            len(live_rows) == instances
        )  # fmt: skip

    def scale(self, name: str, instances: int) -> None:
        assert self.api("POST", f"endpoints/{name}/scale", {"instances": instances}).status_code == 200

    # ── its processes ───────────────────────────────────────────────────────────────────────────
    def kill(self, *programs: str) -> None:
        pids = self.house.processes()
        for program in programs:
            os.kill(pids[program], signal.SIGKILL)

    def processes_of(self, name: str) -> dict[str, Live]:
        """The living processes of an endpoint's instances, by instance."""
        owner = self.owner(name)
        found = live(self.runtime.data)
        return {one: seen for one, seen in found.items() if seen.labels.owner == owner}

    def running(self, name: str) -> dict[str, Observed]:
        """What the runtime sees run for an endpoint: neither ended nor asked to end."""
        seen = self.runtime.observe(self.owner(name))
        return {one: what for one, what in seen.items() if what.phase != Phase.EXITED}

    @property
    def runtime(self) -> ProcessRuntime:
        return ProcessRuntime(self.house.data)

    def kill_instance(self, instance: str) -> tuple[float, float]:
        """Its engine, as a crash or the kernel would end it; when that began, and when it was done: where there is
        much to do, one that was killed takes calls for a moment."""
        engines, address = live(self.runtime.data)[instance].engines, self.runtime.observe()[instance].address
        before = time.monotonic()
        for pid in engines:
            os.kill(pid, signal.SIGKILL)
        until(lambda: _refuses(address or ""), every=0.002, what="the engine to be dead")
        return before, time.monotonic()

    # ── what it wrote down ──────────────────────────────────────────────────────────────────────
    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self.database() as database:
            return database.execute(QUERIES[query], values).fetchall()

    def database(self) -> psycopg.Connection[dict[str, Any]]:
        settings = json.loads((self.house.data / "run" / "environment.json").read_text())
        return psycopg.connect(settings["DATABASE_URL"], row_factory=psycopg.rows.dict_row)

    def owner(self, name: str) -> str:
        return f"endpoint-{self.rows('owner', endpoint=name)[0]['id']}"

    def phases(self, name: str) -> dict[str, str]:
        return {row["kind"]: row["state"] for row in self.rows("phases", endpoint=name)}

    def events(self, name: str) -> list[dict[str, Any]]:
        """Newest first."""
        items: list[dict[str, Any]] = self.api("GET", f"endpoints/{name}/events?limit=200").json()["items"]
        return items

    # ── its traffic ─────────────────────────────────────────────────────────────────────────────
    def counted(self) -> tuple[int, int]:
        """Answered requests, as the dashboard has them and as the bill has them."""
        (metered,), (billed,) = self.rows("metered", endpoint=MAIN), self.rows("billed", endpoint=MAIN)
        return metered["succeeded"], billed["succeeded"]

    @contextmanager
    def traffic(self) -> Iterator[Traffic]:
        """Calls from before the block to its end. Afterwards what was metered is what was answered."""
        before = self.settled()
        with Traffic(f"{self.gateway_url}/e/{MAIN}/v1/chat/completions", self.key("inference")) as traffic:
            until(lambda: len(traffic.answers) >= 4, seconds=30, what="traffic to flow")
            yield traffic
            traffic.goes_on(answers=6)
        wanted = (before[0] + len(traffic.whole), before[1] + len(traffic.whole))
        try:
            until(lambda: self.counted() == wanted, seconds=60, every=0.1)
        except AssertionError:
            raise AssertionError(f"counted {self.counted()}, answered {wanted}; {traffic.summary()}") from None

    def settled(self) -> tuple[int, int]:
        """What is counted once nothing more comes."""

        def written() -> bool:
            health = httpx.get(f"{self.gateway_url}/healthz", trust_env=False, timeout=60).json()
            return bool(health["flush"]["unwritten_rows"] == 0 and health["in_flight"] == 0)

        until(written, seconds=60, every=0.1, what="the gateway to have written its counts")
        return self.counted()

    # ── its pages ───────────────────────────────────────────────────────────────────────────────
    def cookie(self) -> str:
        with self.browser() as client:
            return f"{SESSION}={client.cookies[SESSION]}"


def _refuses(address: str) -> bool:
    """Whether nobody listens there any more."""
    host, port = address.removeprefix("http://").rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
