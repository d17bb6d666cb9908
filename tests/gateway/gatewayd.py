"""A real gateway process for tests that kill it: routes from the command line, a file for a database.

`python -m tests.gateway.gatewayd FOLDER PORT ENGINE_PORT…`. Flushed rows land in FOLDER/flushed.json as
`{"<source> <endpoint> <revision> <minute>": requests}`, replaced by key as the database would.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from gateway.meter import Meter
from gateway.passport import Passport
from gateway.routes import Key, Quotas, Route, RouteTable, Upstream, digest
from gateway.server import serve
from gateway.totals import Rows
from tests.gateway.house import KEYS, MemoryStore


class FileStore(MemoryStore):
    """The memory store, its minutes kept in a file between lives; what nobody can ask it for is not kept."""

    def __init__(self, table: RouteTable, path: Path) -> None:
        super().__init__(table)
        self.path = path

    async def flush(self, batch: Sequence[Rows], used: Mapping[int, float]) -> None:
        written = read(self.path)
        for rows in batch:
            for key, total in rows.minutes.items():
                written[" ".join(map(str, (rows.source, *key)))] = total.requests
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(written))
        fresh.replace(self.path)

    async def flush_passports(self, batch: Sequence[Passport]) -> None:
        """Nobody reads them."""

    async def publish(self, source: str, tick: bytes) -> None:
        """Nobody listens."""


def read(path: Path) -> dict[str, int]:
    found: dict[str, int] = orjson.loads(path.read_bytes()) if path.exists() else {}
    return found


LIMITED = "tir_limited0_secret"  # a caller with all three quotas, none of which it reaches
QUOTAS = Quotas(requests_per_minute=10**9, tokens_per_minute=10**12, concurrent_requests=10**5)


def main() -> None:
    folder, port, *engines = Path(sys.argv[1]), *map(int, sys.argv[2:])
    instances = tuple(
        Upstream(f"tiny-{n}", "127.0.0.1", engine, revision_id=7) for n, engine in enumerate(engines)
    )
    route = Route(5, "tiny", "local", project_id=1, revision_id=7, instances=instances)
    own = Route(6, "own", "local", project_id=1, revision_id=8, instances=instances, open=True)
    keys = {**KEYS, digest(LIMITED): Key(4, project_id=1, holder="key:4", quotas=QUOTAS)}
    store = FileStore(RouteTable([route, own], keys), folder / "flushed.json")
    serve(Meter.open(folder / "spool"), store, host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
