"""Make N of these run: which instances to stop and start, for runtimes that have to count for themselves."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from endpoints.runtimes.base import Workload

LETTERS = 5


@dataclass(frozen=True)
class Replica:
    """A live instance. `leaving`: it was asked to stop already, so it doesn't count any more."""

    name: str
    revision: int
    started_at: datetime
    leaving: bool = False


@dataclass(frozen=True)
class Steps:
    """What to do, in this order: stop these, then start instances of these new names."""

    stop: tuple[str, ...]
    start: tuple[str, ...]


def new_name(owner: str, revision: int) -> str:
    """`<owner>-r<revision>-<5 random letters>`: readable in a list, and not used before."""
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(LETTERS))
    return f"{owner}-r{revision}-{letters}"


def steps(workload: Workload, live: Iterable[Replica]) -> Steps:
    """The steps from what lives to what is wanted; none when they agree. Pure.

    Those in `retire` go first, whatever their revision. Then the revision's own count is made right: surplus
    newest first, because the oldest are warm.
    """
    staying = [replica for replica in live if not replica.leaving]
    retired = [replica.name for replica in staying if replica.name in workload.retire]
    mine = sorted(
        (r for r in staying if r.revision == workload.revision and r.name not in workload.retire),
        key=lambda replica: (replica.started_at, replica.name),
    )
    surplus = [replica.name for replica in reversed(mine[workload.replicas :])]
    missing = max(0, workload.replicas - len(mine))
    return Steps(
        stop=(*retired, *surplus),
        start=tuple(new_name(workload.owner, workload.revision) for _ in range(missing)),
    )
