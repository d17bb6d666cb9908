"""The Runtime of one namespace of a cluster. What an instance is and who starts it again: see the package."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from endpoints.cached import Cached
from endpoints.capacity import Capacity
from endpoints.images.names import name_of
from endpoints.runtimes.base import (
    Command,
    LogLine,
    Observed,
    Phase,
    Rejected,
    Report,
    Sampled,
    Unavailable,
    Workload,
)
from endpoints.runtimes.kubernetes import labels, lives, manifests, namespace, reasons, removal, usage, words
from endpoints.runtimes.kubernetes.api import MANAGER, Api, Object, Refused, Silent, path_of
from endpoints.runtimes.kubernetes.cache import Cache
from endpoints.runtimes.kubernetes.fetching import Fetching
from endpoints.runtimes.kubernetes.logs import Logs
from endpoints.runtimes.kubernetes.looking import told
from endpoints.runtimes.kubernetes.podspec import CUSTOM
from endpoints.runtimes.kubernetes.settings import Settings
from endpoints.runtimes.kubernetes.survey import Survey
from endpoints.runtimes.kubernetes.trouble import Trouble

COUNTER = f"{MANAGER}-replicas"  # the field manager of `replicas`
SEEN_WITHIN = 2.0  # seconds that `apply` waits for the cluster's controllers to do what it asked for
LOOK_EVERY = 0.05
LEAST_LOOKS = 10  # so that a pause of this machine is not taken for the cluster's
PAUSE = 0.5  # seconds between two tries to watch a cluster that is away
TRIES = 3
RETIRING = {labels.DELETION_COST: str(removal.CHEAP), labels.RETIRED: "true"}
UPSET = (Refused, Silent, KeyError, TypeError)  # too old a version, an outage, half an event: look anew


class KubernetesRuntime:
    """Any number of these may look at one namespace, from anywhere; all of them see the same."""

    fetches = True

    def __init__(self, settings: Settings, api: Api | None = None) -> None:
        self.settings = settings
        self.api = api or Api(settings.kubeconfig, settings.context)
        self.place = f"namespace {settings.namespace}"
        self.survey = Survey(self.api, settings)
        self.trouble = Trouble(self.api, settings.namespace)
        self.fetching = Fetching(self.api, settings.namespace)
        self.reading = Logs(self.api, settings.namespace)
        self.cache = Cache(self.api, settings)

    def prepared(self, command: Command) -> bool:
        """See Runtime.prepared: nodes pull for themselves."""
        return command.image is None or name_of(command.image.name) is not None

    def prepare(self, command: Command, report: Report) -> str:
        """See Runtime.prepare."""
        image = command.image.name if command.image else ""
        name = name_of(image)
        if image and name is None:
            raise Rejected(f"{image!r} is no name of an image; one is such as registry.example/team/model:1.2.")
        said = f"The node that takes an instance pulls {image or 'its image'}."
        if name is None or command.engine != CUSTOM:
            return said
        with words.outage(self.place):
            machines = self.survey.architectures()
        return f"{said} {told(name, command, report, architectures=machines, private=self.settings.private)}"

    def apply(self, workload: Workload) -> None:
        """See Runtime.apply."""
        labels.check(workload)
        manifests.require_size(self.settings, workload)
        with words.asking(self.place):
            name = labels.name_of(workload.owner, workload.revision)
            there = self._deployments(workload.owner)
            pods = self._by_deployment(workload.owner)
            for other in sorted(pods.keys() & there.keys() - {name}):
                self._retire_elsewhere(there[other], pods[other], workload.retire)
            running = (there.get(name) or {}).get("spec", {}).get("replicas") or 0
            fresh = bool(workload.replicas and not running)
            if fresh:
                there[name] = self._write(workload, there.get(name))
            elif workload.replicas > running:  # new pods read them anew; the others keep what they have
                self._put(*self._companions(workload, there[name], "Secret"))
            if name in there:
                leaving = removal.leaving(pods.get(name, ()), workload.replicas, workload.retire)
                self._steer(there[name], leaving, paused=bool(pods.get(name)) and not fresh)
                if not workload.replicas:
                    self._drop_when_idle(name)

    def observe(self, owner: str | None = None) -> dict[str, Observed]:
        """See Runtime.observe."""
        with words.outage(self.place):
            pods = self.api.list(self._pods(), labelSelector=self._selector(owner)).items
            at = datetime.now(UTC)
            found: dict[str, Observed] = {}
            for pod in pods:
                self.reading.note(pod)
                told = lives.observed(pod, at, self.survey.shortage)
                for name, one in told.items():
                    found[name] = self.fetching.told(pod, self.trouble.told(pod, one, at))
        return found

    def wait(self, owner: str, seen: Mapping[str, Observed], seconds: float) -> None:
        """See Runtime.wait. A list says whether there are news already; a watch rings for what comes after."""
        known = {name for name, one in seen.items() if one.address or one.phase == Phase.EXITED}
        live = {lives.split(name)[0] for name, one in seen.items() if one.phase != Phase.EXITED}
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            try:
                found = self.api.list(self._pods(), labelSelector=self._selector(owner))
                there = {str(pod["metadata"]["name"]) for pod in found.items}
                if live - there or any(self._is_news(pod, known) for pod in found.items):
                    return
                query = {"labelSelector": self._selector(owner), "allowWatchBookmarks": "true"}
                left = max(0.0, ends - time.monotonic())
                for kind, pod in self.api.watch(self._pods(), found.version, left, **query):
                    if kind == "DELETED" or self._is_news(pod, known) or time.monotonic() >= ends:
                        return
            except UPSET:
                time.sleep(max(0.0, min(PAUSE, ends - time.monotonic())))

    def logs(self, name: str, after: int, limit: int) -> list[LogLine]:
        """See Runtime.logs."""
        with words.outage(self.place):
            return self.reading.lines(name, after, limit)

    def usage(self, owner: str | None = None) -> dict[str, Sampled]:
        """See Runtime.usage. Disk and network are not measured; CPU and memory need the cluster's metrics API."""
        live = [name for name, one in self.observe(owner).items() if one.phase != Phase.EXITED]
        path = path_of(usage.METRICS, "pods", self.settings.namespace)
        used: dict[str, tuple[int, int]] = {}
        with suppress(Refused, Silent):  # no metrics server, or one that is away: nobody measured
            used = usage.of_pods(self.api.list(path, labelSelector=self._selector(owner)).items) if live else {}
        gpus = usage.of_gpus(self.settings.dcgm, self.settings.namespace) if live else {}
        return {name: usage.sampled(lives.split(name)[0], used, gpus) for name in live}

    def capacity(self) -> Capacity:
        """See Runtime.capacity. Only nodes that take instances count; unknown if we may not see them."""
        with words.outage(self.place):
            remark = namespace.check(self.api, self.settings.namespace)
            found = self.survey.capacity()
        return replace(found, reason=found.reason + remark)

    def cached(self) -> Cached | None:
        """See Caches.cached."""
        with words.outage(self.place):
            return self.cache.seen()

    def forget(self, name: str) -> None:
        """See Runtime.forget. Of a pod that is down or was given up this takes the pod away for good."""
        with words.outage(self.place):
            pod_name, life = lives.split(name)
            pod = self._found(self._pods(pod_name))
            one = lives.observed(pod, datetime.now(UTC)).get(name) if pod and self._is_ours(pod) else None
            if pod is None:
                self._drop_when_idle(labels.deployment_of(name))
            elif one is not None and one.phase == Phase.EXITED:
                self._forget(pod, life)
            self.reading.forget(name)

    def tidy(self, keep: Collection[str], *, at: float) -> list[str]:
        """Remove what a call that was cut off left of revisions that run nothing. Images are the nodes' own."""
        with words.outage(self.place):
            self.cache.tell()
            for name, there in self._deployments(None).items():
                if not there["spec"].get("replicas"):
                    self._drop_when_idle(name)
        return []

    # ── writing ─────────────────────────────────────────────────────────────────────────────────
    def _write(self, workload: Workload, before: Object | None) -> Object:
        """What a revision's pods are made from; only while it has none. The Deployment as it is then."""
        uid = str(before["metadata"]["uid"]) if before else ""
        if before is None:
            self._refuse_strangers(labels.name_of(workload.owner, workload.revision))
        self._put(*self._companions(workload, before))
        self.cache.tell()
        made = self._put(manifests.deployment(self.settings, workload))
        if made["metadata"]["uid"] != uid:  # from here on the cluster drops all of it with the Deployment
            self._put(*self._companions(workload, made))
        return made

    def _companions(self, workload: Workload, deployment: Object | None, kind: str = "") -> list[Object]:
        uid = str(deployment["metadata"]["uid"]) if deployment else ""
        found = manifests.companions(self.settings, workload, uid)
        return [one for one in found if kind in {"", one["kind"]}]

    def _put(self, *objects: Object) -> Object:
        made: Object = {}
        for one in objects:
            group, resource = manifests.PATHS[one["kind"]]
            name = one["metadata"]["name"]
            made = self.api.apply(path_of(group, resource, self.settings.namespace, name), one)
        return made

    def _refuse_strangers(self, name: str) -> None:
        """Two consoles in one namespace must not write over each other's things."""
        there = self._found(self._deployment(name))
        if there is not None and not self._is_ours(there):
            raise Rejected(
                f"The Deployment {name} in {self.place} belongs to another installation: give one of both "
                "a namespace of its own."
            )

    def _steer(self, there: Object, leaving: removal.Leaving, *, paused: bool) -> None:
        """Bring the number there, with those going that shall go, and wait a moment until it shows.

        Once it has pods a Deployment is kept paused: its number counts as before, but nobody's edit of what a pod
        looks like replaces what serves, which we would take for pods too many.
        """
        for pod in leaving.guarded:
            self._note(pod, {labels.DELETION_COST: str(removal.DEAR)})
        for pod in leaving.pods:
            self._note(pod, RETIRING)
        if leaving.by_name:
            self._delete(*leaving.pods)
        scaled = self._scale(there, leaving.replicas, paused=paused)
        self.survey.forget()
        active = self._settle(scaled, leaving)
        if active and not paused:
            self._scale(there, leaving.replicas, paused=True)

    def _settle(self, scaled: Object, leaving: removal.Leaving) -> int:
        """How many pods there are, once it is as many as were asked for and those that had to go are going."""
        name = str(scaled["metadata"]["name"])
        ends = time.monotonic() + SEEN_WITHIN
        for looks in itertools.count(1):
            pods = self.api.list(self._pods(), labelSelector=self._selector(name.rpartition("-r")[0])).items
            active = {str(one["metadata"]["name"]) for one in pods if _of(one) == name and lives.is_active(one)}
            left = [pod for pod in leaving.pods if pod in active]
            if left and len(active) <= leaving.replicas:  # the cluster took as many as it had to, or others
                self._delete(*left)
            elif not left and len(active) == leaving.replicas:
                return len(active)
            if looks >= LEAST_LOOKS and time.monotonic() >= ends:
                break
            time.sleep(LOOK_EVERY)
        self._delete(*left)
        if len(active) < leaving.replicas:
            self._say_why_not(scaled, len(active))
        return len(active)

    def _say_why_not(self, scaled: Object, active: int) -> None:
        """Raise with the cluster's words if it can't make the pods; controllers that only lag say nothing."""
        found = self._found(self._deployment(scaled["metadata"]["name"])) or {}
        words = self._why_not(found, scaled)
        if not words:
            return
        said = f"The cluster makes no pod for this: {words}"
        if "exceeded quota" in said:  # it makes them when there is room again
            raise Unavailable(said)
        self._scale(scaled, active, paused=bool(active))
        self._drop_when_idle(scaled["metadata"]["name"])
        if "must specify" in said:
            said += ". A LimitRange of the namespace can give what its quota asks for and instances don't say."
        raise Rejected(said)

    def _why_not(self, found: Object, scaled: Object) -> str:
        """What its ReplicaSet was refused; a paused Deployment does not tell, but the event does."""
        asked = int(scaled["metadata"].get("generation") or 0)
        failure = reasons.condition(found, "ReplicaFailure")
        if failure.get("status") == "True":
            known = int((found.get("status") or {}).get("observedGeneration") or 0) >= asked
            return str(failure.get("message", "")) if known else ""
        if not (found.get("spec") or {}).get("paused"):
            return ""
        return self.trouble.refused(found["metadata"]["name"])

    def _retire_elsewhere(self, there: Object, pods: list[Object], retire: tuple[str, ...]) -> None:
        """Another revision loses those that are named, and keeps its others."""
        running = [pod for pod in pods if lives.is_active(pod) and not lives.is_down(pod)]
        named = {lives.split(one)[0] for one in retire} & {str(pod["metadata"]["name"]) for pod in running}
        if named:
            self._steer(there, removal.leaving(pods, len(running) - len(named), retire), paused=True)

    def _forget(self, pod: Object, life: int) -> None:
        name = pod["metadata"]["name"]
        if lives.is_leaving(pod):  # its object stays for a moment after its end
            self._note(name, {labels.FORGOTTEN: str(life)})
            self._drop_when_idle(_of(pod))
        elif not lives.is_active(pod):  # nobody counts it any more
            self._delete(name)
        elif life < lives.life_of(pod) or not lives.is_down(pod):
            self._note(name, {labels.FORGOTTEN: str(life)})
        else:
            self._take_away(name, _of(pod))

    def _take_away(self, pod: str, name: str) -> None:
        """One pod less, and this one: nobody else shall be made in its place."""
        for _ in range(TRIES):
            there = self.api.get(self._deployment(name))
            wanted = max(0, int(there["spec"].get("replicas") or 0) - 1)
            self._note(pod, RETIRING)
            try:
                self._scale(there, wanted, paused=True, unchanged=True)
            except Refused as refused:
                if refused.status != 409:
                    raise
                continue
            self._delete(pod)
            self._drop_when_idle(name)
            return

    def _scale(self, there: Object, replicas: int, *, paused: bool, unchanged: bool = False) -> Object:
        body = manifests.scale(there, replicas, paused=paused, unchanged=unchanged)
        return self.api.apply(self._deployment(there["metadata"]["name"]), body, manager=COUNTER, force=True)

    def _note(self, pod: str, annotations: Mapping[str, str]) -> None:
        try:
            self.api.merge(self._pods(pod), {"metadata": {"annotations": dict(annotations)}})
        except Refused as refused:
            if refused.status != 404:  # gone meanwhile
                raise

    def _delete(self, *pods: str) -> None:
        for pod in pods:
            self.api.delete(self._pods(pod))

    def _drop_when_idle(self, name: str) -> None:
        """Remove what stands for a revision of which nothing shall run; the cluster takes what belongs to it."""
        if not labels.OWNERS.fullmatch(name.rpartition("-r")[0]):
            return
        for _ in range(TRIES):
            there = self._found(self._deployment(name))
            if there is None or there["spec"].get("replicas") or not self._is_ours(there):
                return
            as_it_is = {key: there["metadata"][key] for key in ("uid", "resourceVersion")}
            try:
                self.api.delete(self._deployment(name), propagationPolicy="Background", preconditions=as_it_is)
            except Refused as refused:
                if refused.status != 409:  # its status changed, or it is wanted again
                    raise
                continue
            return

    # ── looking ─────────────────────────────────────────────────────────────────────────────────
    def _is_news(self, pod: Object, known: set[str]) -> bool:
        found = lives.observed(pod, datetime.now(UTC))
        return any((one.address or one.phase == Phase.EXITED) and name not in known for name, one in found.items())

    def _is_ours(self, thing: Object) -> bool:
        return labels.label(thing, labels.INSTALLATION) == self.settings.installation

    def _found(self, path: str) -> Object | None:
        try:
            return self.api.get(path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def _deployments(self, owner: str | None) -> dict[str, Object]:
        path = path_of("apps/v1", "deployments", self.settings.namespace)
        found = self.api.list(path, labelSelector=self._selector(owner)).items
        return {str(one["metadata"]["name"]): one for one in found}

    def _by_deployment(self, owner: str) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = defaultdict(list)
        for pod in self.api.list(self._pods(), labelSelector=self._selector(owner)).items:
            found[_of(pod)].append(pod)
        return found

    def _selector(self, owner: str | None) -> str:
        return labels.selector(self.settings.installation, owner)

    def _pods(self, name: str = "") -> str:
        return path_of("v1", "pods", self.settings.namespace, name)

    def _deployment(self, name: str) -> str:
        return path_of("apps/v1", "deployments", self.settings.namespace, name)


def _of(pod: Object) -> str:
    """The Deployment that a pod belongs to, by its labels."""
    revision = labels.label(pod, labels.REVISION)
    return labels.name_of(labels.label(pod, labels.OWNER), int(revision) if revision.isdigit() else 0)
