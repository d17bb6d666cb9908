"""A pod's lives as instances: which there are, and how each is. Pure; the reasoning stands in the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from endpoints.runtimes.base import Observed, Phase
from endpoints.runtimes.kubernetes import labels, reasons
from endpoints.runtimes.kubernetes.podspec import FETCH, MAIN
from endpoints.runtimes.kubernetes.times import LONG_AGO, since

Pod = Mapping[str, Any]
Status = Mapping[str, Any]

UNDISTURBED = timedelta(minutes=10)  # after a life as long as this the kubelet starts the next one at once
LOST_AFTER = timedelta(seconds=60)  # past a deletion's grace: the node is not there to confirm it


@dataclass(frozen=True)
class End:
    """How one life ended, as a container's status tells it."""

    status: Mapping[str, Any]
    of_fetch: bool


def name_of(pod: Pod, life: int) -> str:
    """The name of an instance."""
    name = str(pod["metadata"]["name"])
    return f"{name}.{life}" if life else name


def split(instance: str) -> tuple[str, int]:
    """The pod's name and the number of the life."""
    pod, _, life = instance.partition(".")
    return pod, int(life) if life.isdigit() else 0


def observed(pod: Pod, at: datetime, numbers: reasons.Numbers = lambda _pod: "") -> dict[str, Observed]:
    """The lives of one pod that can be told of and are not forgotten."""
    told = _Told(pod, at, numbers).all()
    return {
        one.name: one for life, one in told.items() if one.phase != Phase.EXITED or not is_forgotten(pod, life)
    }


def is_forgotten(pod: Pod, life: int) -> bool:
    """Whether this life's end is not to be told of any more."""
    dropped = labels.annotation(pod, labels.FORGOTTEN)
    return dropped.isdigit() and life <= int(dropped)


def life_of(pod: Pod) -> int:
    """The number of the present life: how often its containers were started again."""
    return sum(int(one.get("restartCount") or 0) for one in _statuses(pod))


def is_active(pod: Pod) -> bool:
    """Whether its ReplicaSet counts it."""
    ended = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    return not ended and not is_leaving(pod)


def is_leaving(pod: Pod) -> bool:
    """Whether it is being deleted."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_down(pod: Pod) -> bool:
    """Whether its present life has ended and none follows at once: it is to be replaced, not waited for."""
    end = _present_end(pod)
    return end is not None and not _follows_at_once(pod, end)


def ends(pod: Pod) -> dict[int, End]:
    """How those lives ended of which the pod's status tells."""
    life = life_of(pod)
    if (end := _present_end(pod)) is not None:
        return {life: end}
    before = _earlier_end(pod)
    return {life - 1: before} if before else {}


def is_fetching(pod: Pod) -> bool:
    """Whether its model is being brought just now."""
    return "running" in (_status(pod, FETCH).get("state") or {})


def address(pod: Pod) -> str | None:
    """Where its serving container answers, once it runs."""
    ip, main = (pod.get("status") or {}).get("podIP"), _status(pod, MAIN)
    if not ip or "running" not in (main.get("state") or {}):
        return None
    host = f"[{ip}]" if ":" in ip else ip
    return f"http://{host}:{port(pod)}"


def port(pod: Pod) -> int:
    """The serving container's port."""
    for one in pod["spec"]["containers"]:
        if one["name"] == MAIN and one.get("ports"):
            return int(one["ports"][0]["containerPort"])
    return 8000


class _Told:
    """One look at one pod."""

    def __init__(self, pod: Pod, at: datetime, numbers: reasons.Numbers) -> None:
        self.pod, self.at, self.numbers = pod, at, numbers
        self.life = life_of(pod)

    def all(self) -> dict[int, Observed]:
        if (self.pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"} and not _was_stopped(self.pod):
            return {self.life: self.given_up()}
        if is_leaving(self.pod):
            return self.leaving()
        if (end := _present_end(self.pod)) is not None:
            found = {self.life: self.dead(self.life, end)}
            if _follows_at_once(self.pod, end):
                found[self.life + 1] = self.starting(self.life + 1, since(end.status.get("finishedAt")))
            return found
        found = {self.life: self.alive()}
        if self.life and (before := _earlier_end(self.pod)) is not None:
            found[self.life - 1] = self.dead(self.life - 1, before)
        return found

    def leaving(self) -> dict[int, Observed]:
        """Of one that is being deleted: what ran runs until its end, what never ran is gone."""
        main = _status(self.pod, MAIN).get("state") or {}
        deadline = since(self.pod["metadata"]["deletionTimestamp"])
        if "terminated" in main:
            return {self.life: self.dead(self.life, End(main["terminated"], of_fetch=False))}
        if "running" not in main:
            return {}
        if self.at > deadline + LOST_AFTER:
            words = f"Its node {self.pod['spec'].get('nodeName', '')} doesn't answer; nobody saw how it ended"
            return {self.life: self.ended(self.life, None, words, "NodeLost", deadline)}
        target = reasons.condition(self.pod, "DisruptionTarget")
        why = str(target.get("reason", "")) if target.get("status") == "True" else ""
        return {self.life: replace(self.alive(), leaving=True, reason=why)}

    def alive(self) -> Observed:
        where = address(self.pod)
        return self.running(where) if where else self.starting(self.life, self.began())

    def running(self, where: str) -> Observed:
        return self.one(self.life, Phase.RUNNING, self.began(), address=where)

    def starting(self, life: int, began: datetime) -> Observed:
        waiting = tuple(one for one in _statuses(self.pod) if "waiting" in (one.get("state") or {}))
        reason, message = reasons.holding(self.pod, waiting, self.numbers)
        return self.one(life, Phase.STARTING, began, reason=reason, message=message)

    def dead(self, life: int, end: End) -> Observed:
        limit = _memory_limit(self.pod)
        tell = reasons.fetching(end.status) if end.of_fetch else reasons.death(end.status, limit)
        reason, code, message = tell
        asked = bool(labels.annotation(self.pod, labels.RETIRED)) and is_leaving(self.pod)
        if asked and code in {0, 143}:
            message = "stopped when asked"
        if not reason and _in_back_off(self.pod) and life == self.life:
            reason = "CrashLoopBackOff"
        finished = since(end.status.get("finishedAt"))
        began = self.created() if not life else _began(end)
        return self.one(
            life,
            Phase.EXITED,
            min(began, finished),
            exit_code=code,
            message=message,
            finished_at=finished,
            asked=asked,
            reason=reason,
        )

    def given_up(self) -> Observed:
        """Of a pod that the cluster ended: put out by its node, or never taken."""
        reason, message = reasons.failure(self.pod)
        end = _present_end(self.pod)
        code = end.status.get("exitCode") if end else None
        when = since(end.status.get("finishedAt")) if end else self.changed()
        return self.ended(self.life, code, message, reason, when)

    def ended(self, life: int, code: int | None, message: str, reason: str, when: datetime) -> Observed:
        return self.one(
            life,
            Phase.EXITED,
            min(self.began(), when),
            exit_code=code,
            message=message,
            finished_at=when,
            asked=bool(labels.annotation(self.pod, labels.RETIRED)),
            reason=reason,
        )

    def one(self, life: int, phase: Phase, began: datetime, **more: Any) -> Observed:
        values: dict[str, Any] = {"address": None, "exit_code": None, "message": "", "finished_at": None, **more}
        revision = labels.label(self.pod, labels.REVISION)
        return Observed(
            name=name_of(self.pod, life),
            owner=labels.label(self.pod, labels.OWNER),
            revision=int(revision) if revision.isdigit() else 0,
            phase=phase,
            started_at=began,
            **values,
        )

    def created(self) -> datetime:
        return since(self.pod["metadata"].get("creationTimestamp"))

    def began(self) -> datetime:
        """When the present life began: with the pod, or with the end of the life before."""
        before = _earlier_end(self.pod) if self.life else None
        return since(before.status.get("finishedAt")) if before else self.created()

    def changed(self) -> datetime:
        """When the cluster last changed its mind about this pod."""
        found = (self.pod.get("status") or {}).get("conditions") or ()
        return max((since(one.get("lastTransitionTime")) for one in found), default=self.created())


def _statuses(pod: Pod) -> list[Status]:
    """Of the fetching container, then of the serving one; others that a cluster adds are its own business."""
    status = pod.get("status") or {}
    both = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return [one for one in both if one.get("name") in {FETCH, MAIN}]


def _status(pod: Pod, name: str) -> Status:
    return next((one for one in _statuses(pod) if one["name"] == name), {})


def _present_end(pod: Pod) -> End | None:
    """The end of the present life, if it has ended."""
    for one in _statuses(pod):
        state, last = one.get("state") or {}, one.get("lastState") or {}
        of_fetch = one["name"] == FETCH
        done = state.get("terminated")
        if done and not (of_fetch and done.get("exitCode") == 0):
            return End(done, of_fetch)
        if "waiting" in state and last.get("terminated") and not _being_made(one):
            return End(last["terminated"], of_fetch)
    return None


def end_of(status: Status, *, previous: bool) -> Mapping[str, Any] | None:
    """How a container's present run ended, or the one before it; None where there is none, or nobody tells it."""
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    if "waiting" in state and last and not _being_made(status):  # for its next run: the last one is the present
        return None if previous else last
    return last if previous else state.get("terminated")


def _was_stopped(pod: Pod) -> bool:
    """Whether it ended because it was deleted, and its object goes next: the cluster didn't give it up."""
    ended = "terminated" in (_status(pod, MAIN).get("state") or {})
    reason = (pod.get("status") or {}).get("reason")
    return is_leaving(pod) and ended and not reason and not reasons.condition(pod, "DisruptionTarget")


def _being_made(status: Status) -> bool:
    """Whether the next life's container is there already, and counted, though it doesn't run yet."""
    reason = status["state"]["waiting"].get("reason", "")
    return bool(status.get("restartCount")) and reason in {"", "ContainerCreating", "PodInitializing"}


def _earlier_end(pod: Pod) -> End | None:
    """The end of the life before the present one; None where the API no longer tells it."""
    for name in (MAIN, FETCH):
        one = _status(pod, name)
        if int(one.get("restartCount") or 0):
            end = (one.get("lastState") or {}).get("terminated")
            return End(end, name == FETCH) if end else None
    return None


def _in_back_off(pod: Pod) -> bool:
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in _statuses(pod)]
    return any(one.get("reason") == "CrashLoopBackOff" for one in waiting)


def _follows_at_once(pod: Pod, end: End) -> bool:
    """Whether the kubelet starts the next life without a pause, or is just doing so."""
    if _in_back_off(pod) or is_leaving(pod):
        return False
    lived = since(end.status.get("finishedAt")) - _began(end)
    return life_of(pod) == 0 or lived > UNDISTURBED


def _began(end: End) -> datetime:
    """When a life that ended had begun. One that could not be started has a beginning in 1970."""
    began = since(end.status.get("startedAt"))
    return began if began > LONG_AGO else since(end.status.get("finishedAt"))


def _memory_limit(pod: Pod) -> str:
    for one in pod["spec"]["containers"]:
        if one["name"] == MAIN:
            bytes_ = str(((one.get("resources") or {}).get("limits") or {}).get("memory", ""))
            return f"{int(bytes_) / 1024**3:.3g} GiB" if bytes_.isdigit() else bytes_
    return ""
