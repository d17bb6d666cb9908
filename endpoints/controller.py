"""The loop: claim, load, observe, probe, plan, write, act, settle.

Level-triggered: it never asks what happened, only what is. It may run twice, late, or be killed anywhere;
the next run finishes what this one left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.utils import timezone

from endpoints import bell, facts, probes, settle
from endpoints.lease import RENEW_AFTER, Lease, Lost, Outdated, lease
from endpoints.models import Endpoint
from endpoints.models.deployment import InstanceState
from endpoints.planner import Apply, EndpointFacts, Plan, Probe, needs_room, plan
from endpoints.probes import Asked, Prober
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Observed, Phase, Runtime, Unavailable

log = logging.getLogger(__name__)

ATTENTION = timedelta(seconds=20)  # how long one run stays with one endpoint before others get its place
SOON = timedelta(seconds=1.5)  # what is due within this is waited for in place
PROBE_EVERY = timedelta(seconds=2)  # while a run stays, those that serve are asked this often
SERVED = (InstanceState.READY, InstanceState.UNREADY)
Clock = Callable[[], datetime]
_probers = ThreadPoolExecutor(max_workers=32, thread_name_prefix="probe")


@dataclass(frozen=True)
class Turn:
    """What one turn of the loop saw and planned. `loading`: the engines that are not healthy yet;
    `newborn`: something was started that has no address yet."""

    endpoint: Endpoint
    runtime: Runtime
    observed: Mapping[str, Observed]
    plan: Plan
    loading: tuple[Asked, ...]
    newborn: bool


Rest = Callable[[Turn, float], None]  # for so many seconds at most


def reconcile(
    endpoint_id: int,
    *,
    clock: Clock = timezone.now,
    rest: Rest | None = None,
    prober: Prober = probes.probe,
) -> bool:
    """Bring one endpoint towards what is wanted, as far as that goes now. False if another run holds it."""
    with lease(endpoint_id) as held:
        if held is None:
            return False
        ends, asked_at = clock() + ATTENTION, None
        while True:
            now = clock()
            served = asked_at is None or now - asked_at >= PROBE_EVERY
            asked_at = now if served else asked_at
            try:
                held.keep()
                turn = one_pass(held, clock, prober, served=served)
            except Outdated:
                continue
            except Lost as lost:
                log.info("%s", lost)
                return False
            now = clock()
            due = turn.plan.look_again_at if turn else None
            if turn is None or due is None or due > now + SOON or now > ends:
                return True
            (rest or rest_until)(turn, max(0.0, (due - now).total_seconds()))


def rest_until(turn: Turn, seconds: float) -> None:
    """Wait between two turns: for an engine to have loaded or to have its address, else for somebody who rings."""
    if turn.loading:
        probes.await_healthy(turn.loading, seconds)
    elif turn.newborn:
        turn.runtime.wait(turn.endpoint.owner, turn.observed, seconds)
    else:
        bell.rest(turn.endpoint.pk, seconds)


def one_pass(held: Lease, clock: Clock, prober: Prober, *, served: bool) -> Turn | None:
    """One turn of the loop; `served`: also ask those that serve already. None when nothing is left to steer or
    the region can't be asked now. Raises Lost and Outdated, having written and done nothing."""
    endpoint = Endpoint.objects.living().select_related("region").filter(pk=held.endpoint_id).first()
    if endpoint is None:
        return None
    try:
        runtime = runtime_of(endpoint.region)
        observed = runtime.observe(endpoint.owner)
        known = facts.load([endpoint], observed, clock())[0].facts
        known = with_world(known, observed, runtime)
    except Unavailable as problem:
        # Never read as "nothing runs": what is known stays as it is until the region answers again.
        log.warning("Region %s can't be asked: %s", endpoint.region.slug, problem)
        return None
    asked = questions(known, observed, served=served)
    answers = _gather(asked, clock, prober, held)
    planned = plan(known, observed, answers, clock())
    settle.last_words(endpoint, planned, runtime)
    if planned.writes:
        settle.write(known, endpoint, planned, at=clock(), guard=lambda: held.hold(known.generation))
    elif planned.actions:
        held.hold(known.generation)
    settle.act(endpoint, planned, runtime, at=clock())
    starting = [seen for seen in observed.values() if seen.phase == Phase.STARTING]
    return Turn(
        endpoint,
        runtime,
        observed,
        planned,
        loading=tuple(one for one in asked if not answers[one.name].healthy_at),
        newborn=bool(starting) or any(isinstance(action, Apply) for action in planned.actions),
    )


def with_world(known: EndpointFacts, observed: Mapping[str, Observed], runtime: Runtime) -> EndpointFacts:
    """The facts, with the room there is and what the gateways carry, where the plan may need them."""
    going = any(one.state == InstanceState.DRAINING for one in known.instances)
    if going or len(observed) > known.wanted:
        known = replace(known, in_flight=facts.carried())
    wanted = known.deployment.revision if known.deployment else known.serving
    if wanted and needs_room(known, observed):
        known = replace(known, room=facts.room_for(runtime.capacity(), wanted))
    return known


def questions(known: EndpointFacts, observed: Mapping[str, Observed], *, served: bool) -> list[Asked]:
    """Whom to probe: what has an address, and must prove itself if it never served. `served`: also those that
    serve; those that failed to answer the last time are asked every time."""
    rows = {one.name: one for one in known.instances}
    asked = []
    for name, seen in observed.items():
        if seen.phase != Phase.RUNNING or not seen.address or name in known.ended:
            continue
        row, revision = rows.get(name), known.revisions.get(seen.revision)
        one = Asked(name, seen.address, known.alias, prove=row is None or row.state not in SERVED)
        if revision is not None:
            one = replace(one, health_path=revision.health_path, ours=revision.ours)
        due = one.prove or served or (row is not None and row.probe_failures)
        if due and (row is None or row.state != InstanceState.DRAINING):
            asked.append(one)
    return asked


def _gather(asked: list[Asked], clock: Clock, prober: Prober, held: Lease) -> dict[str, Probe]:
    """Ask all at once. A first real call may take longer than the lease, which is kept meanwhile."""
    waiting = {_probers.submit(prober, one, clock): one.name for one in asked}
    pending = set(waiting)
    while pending:
        _, pending = wait(pending, timeout=RENEW_AFTER)
        held.keep()
    return {name: future.result() for future, name in waiting.items()}
