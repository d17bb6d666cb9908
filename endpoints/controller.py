"""The loop: claim, load, observe, probe, plan, write, act, settle.

Level-triggered: it never asks what happened, only what is. It may run twice, late, or be killed anywhere;
the next run finishes what this one left.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

from django.utils import timezone

from endpoints import facts, probes, settle
from endpoints.facts import Loaded
from endpoints.lease import Lost, hold, lease
from endpoints.models import Endpoint, Instance
from endpoints.models.deployment import InstanceState
from endpoints.planner import EndpointFacts, Plan, Probe, Room, plan
from endpoints.regions import runtime_of
from endpoints.runtimes.base import Observed, Phase, Runtime, Unavailable

log = logging.getLogger(__name__)

ATTENTION = timedelta(seconds=20)  # how long one run stays with one endpoint before others get its place
SOON = timedelta(seconds=1.5)  # what is due within this is waited for in place
SERVED = (InstanceState.READY, InstanceState.UNREADY)
Clock = Callable[[], datetime]
_probers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="probe")


def reconcile(
    endpoint_id: int, *, clock: Clock = timezone.now, pause: Callable[[float], None] = time.sleep
) -> bool:
    """Bring one endpoint towards what is wanted, as far as that goes now. False if another run holds it."""
    with lease(endpoint_id) as token:
        if token is None:
            return False
        ends, first = clock() + ATTENTION, True
        while True:
            try:
                planned = one_pass(endpoint_id, token, clock, probe_served=first)
            except Lost as lost:
                log.info("%s", lost)
                return False
            now, first = clock(), False
            due = planned.look_again_at if planned else None
            if due is None or due > now + SOON or now > ends:
                return True
            pause(max(0.0, (due - now).total_seconds()))


def one_pass(endpoint_id: int, token: uuid.UUID, clock: Clock, *, probe_served: bool = True) -> Plan | None:
    """One turn of the loop. None when nothing is left to steer or the region can't be asked now."""
    endpoint = Endpoint.objects.living().select_related("region").filter(pk=endpoint_id).first()
    if endpoint is None:
        return None
    runtime = runtime_of(endpoint.region)
    try:
        observed = runtime.observe(endpoint.owner)
        loaded = facts.load([endpoint], clock())[0]
        known = with_world(loaded, observed, runtime)
    except Unavailable as problem:
        # Never read as "nothing runs": what is known stays as it is until the region answers again.
        log.warning("Region %s can't be asked: %s", endpoint.region.slug, problem)
        return None
    answers = ask(known, observed, clock, served=probe_served)
    planned = plan(known, observed, answers, clock())
    if planned.writes:
        settle.write(endpoint, planned, at=clock(), guard=lambda: hold(endpoint_id, token))
    settle.act(loaded, planned, runtime, at=clock())
    return planned


def with_world(loaded: Loaded, observed: Mapping[str, Observed], runtime: Runtime) -> EndpointFacts:
    """The facts, with the room there is and the names among the observed whose rows are closed."""
    known = loaded.facts
    others = observed.keys() - {one.name for one in known.instances}
    ended = Instance.objects.filter(name__in=others).values_list("name", flat=True) if others else ()
    wanted = known.deployment.revision if known.deployment else known.serving
    room = Room(*facts.room_for(runtime.capacity(), loaded.revisions[wanted.id])) if wanted else None
    return replace(known, ended=frozenset(ended), room=room)


def ask(known: EndpointFacts, observed: Mapping[str, Observed], clock: Clock, *, served: bool) -> dict[str, Probe]:
    """Probe what has an address; what never served must prove itself. `served`: also those that serve."""
    states = {one.name: one.state for one in known.instances}
    asked = [
        probes.Asked(name, seen.address, known.alias, prove=states.get(name) not in SERVED)
        for name, seen in observed.items()
        if seen.phase == Phase.RUNNING
        and seen.address
        and name not in known.ended
        and states.get(name) != InstanceState.DRAINING
        and (served or states.get(name) not in SERVED)
    ]
    answers = _probers.map(lambda one: probes.probe(one, clock), asked)
    return {one.name: answer for one, answer in zip(asked, answers, strict=True)}
