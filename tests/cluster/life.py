"""What a cluster does by itself: its controllers make and remove pods, its nodes start, restart and end them.

A pod does what its variable BEHAVE says: `serve`, `crash` with code 1, `slow` (its image isn't there until
`let_go`), `hungry` (killed for its memory), `unfetched` (its fetch fails once), `fetching` (its fetch goes on
until `let_go`), `unpullable`.
"""

import copy
import secrets
import string
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from endpoints.capacity import DEFAULT_POOL
from endpoints.runtimes.kubernetes import room
from endpoints.runtimes.kubernetes.settings import Pool
from tests.cluster.server import Cluster
from tests.cluster.store import Key, Object, Refusal, now

NAMESPACE = "models"
GPU = "nvidia.com/gpu"
HELLO, LAST_WORDS = "hello from the engine", "the engine gave up"
ADDRESS = "10.1.0."


def node(name: str, cpu: str = "8", memory: str = "32Gi", gpus: int = 0, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, GPU: str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux"},
        },
    }


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


class Life:
    """Goes on in a thread of its own, or step by step with `tick`.

    `restarts`: whether the kubelet starts ended containers again. `making`: whether the ReplicaSet's controller
    does its work. `made_at`: when the last pod was made, as it says. `ending`: ticks that a pod on its way out
    goes on for. `quota`: why pods can't be made. `report`: what a fetch leaves as its container's last message.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.store = cluster, cluster.store
        self.restarts = True
        self.making = True
        self.slow_go = False
        self.ending = 5
        self.quota = ""
        self.report = ""
        self.dead_nodes: set[str] = set()
        self.backed_off: set[str] = set()
        self._ending: dict[str, int] = {}
        self._templates: dict[str, Object] = {}  # of each Deployment's present ReplicaSet
        self._count = 0
        self.made_at = datetime.now(UTC) - timedelta(hours=1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        seen: object = None
        while not self._stop.wait(0.01):
            facts = (self.store.version, self.restarts, self.making, self.slow_go, self.cluster.woken.is_set())
            if facts != seen or self._ending:
                self.tick()
            seen = facts

    def tick(self) -> None:
        with self.store.lock:
            if self.cluster.woken.is_set():
                self.cluster.woken.clear()
                self.making = True
            for one in self.store.all("deployments.apps"):
                self._control(one)
            for pod in self.store.all("pods"):
                self._pod(pod)

    # ── controllers ─────────────────────────────────────────────────────────────────────────────
    def _control(self, one: Object) -> None:
        name, wanted = one["metadata"]["name"], one["spec"]["replicas"]
        chosen = ",".join(f"{key}={value}" for key, value in one["spec"]["selector"]["matchLabels"].items())
        mine = [pod for pod in self.store.all("pods", NAMESPACE, chosen) if _active(pod)]
        trouble = ""
        if not one["spec"].get("paused"):
            self._roll(one, mine)
        made_from = self._templates.get(one["metadata"]["uid"])  # a paused one makes no ReplicaSet
        if self.making and made_from:
            for pod in sorted(mine, key=_rank)[: max(0, len(mine) - wanted)]:
                self._delete(_key(pod))
            for _ in range(wanted - len(mine)):
                trouble = self.quota
                if not trouble:
                    self._make(name, made_from)
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": trouble}
        self.store.status(
            ("deployments.apps", NAMESPACE, name),
            {
                "replicas": min(len(mine), wanted),
                "observedGeneration": one["metadata"]["generation"],
                "conditions": [failure] if trouble and not one["spec"].get("paused") else [],
            },
        )
        if trouble:
            self._tell(name, trouble)

    def _roll(self, one: Object, pods: list[Object]) -> None:
        """Another template makes another ReplicaSet: the pods of the one before go."""
        uid, template = one["metadata"]["uid"], one["spec"]["template"]
        before = self._templates.get(uid)
        self._templates[uid] = template
        for pod in pods if before not in (None, template) else ():
            self._delete(_key(pod))

    def _tell(self, name: str, trouble: str) -> None:
        """The ReplicaSet's event, of which there is one that counts."""
        key = ("events", NAMESPACE, f"{name}-6b9f7c")
        told = {
            "apiVersion": "v1",
            "kind": "Event",
            "involvedObject": {"kind": "ReplicaSet", "name": f"{name}-6b9f7c"},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": f"Error creating: {trouble}",
            "lastTimestamp": now(),
        }
        if key in self.store.objects:
            self.store.remove(key)
        self.store.create(key, told)

    def _make(self, name: str, made_from: Object) -> None:
        letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
        template = copy.deepcopy(made_from)
        self.made_at += timedelta(seconds=1)  # times have no fractions: here no two pods are of the same second
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template["metadata"],
                "name": f"{name}-6b9f7c-{letters}",
                "creationTimestamp": self.made_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self.store.create(("pods", NAMESPACE, pod["metadata"]["name"]), pod)

    def _delete(self, key: Key) -> None:
        self.store.delete(key, {})

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────
    def _pod(self, pod: Object) -> None:
        key, name = _key(pod), pod["metadata"]["name"]
        if pod["spec"].get("nodeName") in self.dead_nodes:
            return
        if pod["metadata"].get("deletionTimestamp"):
            self._ending[name] = self._ending.get(name, self.ending) - 1
            if self._ending[name] <= 0:
                del self._ending[name]
                self.store.remove(key)
            elif self._ending[name] <= self.ending // 2:  # its containers end before its object goes
                self.store.status(key, self._stopped(pod))
        elif not pod["spec"].get("nodeName"):
            self._schedule(pod)
        elif pod["status"]["phase"] not in {"Failed", "Succeeded"}:
            self.store.status(key, self._next(pod))

    def _schedule(self, pod: Object) -> None:
        pods = [one for one in self.store.all("pods") if one["status"].get("phase") not in {"Failed", "Succeeded"}]
        wanted = room.promised(pod, GPU)
        pool = Pool(pod["spec"].get("nodeSelector", {}), tuple(pod["spec"].get("tolerations", ())))
        for one in room.nodes(self.store.all("nodes"), pods, {DEFAULT_POOL: pool}, GPU):
            if one.name not in self.dead_nodes and wanted == wanted.least(one.free):
                self.store.spec(_key(pod), nodeName=one.name)
                return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory.",
        }
        self.store.status(_key(pod), {"phase": "Pending", "conditions": [condition]})

    def _next(self, pod: Object) -> Object:
        status: Object = copy.deepcopy(pod["status"])
        behave = _behave(pod)
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        fetch = self._container(pod, "fetch") if pod["spec"].get("initContainers") else None
        if fetch is not None:
            held = behave == "fetching" and not self.slow_go
            how = "crash" if behave == "unfetched" else "held" if held else "fetch"
            status["initContainerStatuses"] = [self._step(pod, fetch, how)]
        fetched = (
            fetch is None or status["initContainerStatuses"][0]["state"].get("terminated", {}).get("exitCode") == 0
        )
        main = self._container(pod, "model")
        if fetched:
            main = self._step(pod, main, "serve" if behave == "unfetched" else behave)
        status["containerStatuses"] = [main]
        if "running" in main["state"]:
            if "podIP" not in status:
                self._count += 1
                status["podIP"] = f"{ADDRESS}{self._count}"
            status["phase"] = "Running"
        ready = "True" if "running" in main["state"] else "False"
        status["conditions"].append({"type": "Ready", "status": ready})
        return status

    def _stopped(self, pod: Object) -> Object:
        ends = [
            self.ended(pod, one, 0, "Completed") if "running" in one["state"] else one
            for one in pod["status"].get("containerStatuses", ())
        ]
        return {**pod["status"], "containerStatuses": ends, "phase": "Succeeded"}

    def _container(self, pod: Object, name: str) -> Object:
        both = [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]
        fresh = {
            "name": name,
            "image": "",
            "restartCount": 0,
            "state": {"waiting": {"reason": "PodInitializing"}},
            "lastState": {},
        }
        found: Object = next((copy.deepcopy(one) for one in both if one["name"] == name), fresh)
        return found

    def _step(self, pod: Object, one: Object, behave: str) -> Object:
        """One container, one step on."""
        state = one["state"]
        if "waiting" in state and state["waiting"].get("reason") != "CrashLoopBackOff":
            if behave == "slow" and not self.slow_go:
                return one | {"state": {"waiting": {"reason": "ContainerCreating"}}}
            if behave == "unpullable":
                waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image: not found"}
                return one | {"state": {"waiting": waiting}}
            self.say(
                pod, one, HELLO if behave not in {"fetch", "held"} else '{"done": 1073741824, "total": 2147483648}'
            )
            return one | {"state": {"running": {"startedAt": now()}}}
        if "running" in state and behave == "fetch":
            return self.ended(pod, one, 0, "Completed")
        if "running" in state and behave == "crash":
            self.say(pod, one, LAST_WORDS)
            return self.ended(pod, one, 1, "Error")
        if "running" in state and behave == "hungry":
            return self.ended(pod, one, 137, "OOMKilled")
        if "terminated" in state and state["terminated"]["exitCode"] != 0 and self.restarts:
            return self._again(pod, one, state["terminated"])
        return one

    def _again(self, pod: Object, one: Object, end: Object) -> Object:
        """The kubelet starts it again at once the first time, and makes it wait from then on."""
        if one["restartCount"]:
            self.backed_off.add(pod["metadata"]["name"])
            waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
            return one | {"state": {"waiting": waiting}, "lastState": {"terminated": end}}
        return self.restarted(one | {"lastState": {"terminated": end}})

    def restarted(self, one: Object) -> Object:
        return one | {
            "restartCount": one["restartCount"] + 1,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        }

    def ended(self, pod: Object, one: Object, code: int, reason: str) -> Object:
        lines = self.cluster.logs.get((pod["metadata"]["name"], one["name"], one["restartCount"]), [])
        message = "\n".join(line.partition(" ")[2] for line in lines) if code else ""
        message = message or (self.report if one["name"] == "fetch" else "")
        began = one["state"].get("running", {}).get("startedAt", now())
        end = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": now(), "message": message}
        return one | {"state": {"terminated": end}}

    def say(self, pod: Object, one: Object, *texts: str) -> None:
        where = (pod["metadata"]["name"], one["name"], one["restartCount"])
        self.cluster.logs.setdefault(where, []).extend(f"{stamp()} {text}" for text in texts)

    # ── what a test does ────────────────────────────────────────────────────────────────────────
    def change(self, name: str, change: Callable[[Object], Object]) -> None:
        """Write a pod's status."""
        with self.store.lock:
            key = ("pods", NAMESPACE, name)
            self.store.status(key, change(copy.deepcopy(self.store.get(key)["status"])))

    def kill(self, name: str, code: int = 137, reason: str = "Error") -> None:
        """The serving container ends now."""
        pod = self.store.get(("pods", NAMESPACE, name))

        def change(status: Object) -> Object:
            main = status["containerStatuses"][0]
            return status | {"containerStatuses": [self.ended(pod, main, code, reason) | {"lastState": {}}]}

        self.change(name, change)

    def restart_after_back_off(self, name: str) -> None:
        def change(status: Object) -> Object:
            return status | {"containerStatuses": [self.restarted(status["containerStatuses"][0])]}

        self.change(name, change)

    def vanish(self, name: str) -> None:
        """Gone at once, and nobody makes another until something is asked of the cluster."""
        with self.store.lock:
            self.making = False
            self.cluster.woken.clear()
            self.store.remove(("pods", NAMESPACE, name))


def _key(pod: Object) -> Key:
    return ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])


def _active(pod: Object) -> bool:
    ended = pod["status"].get("phase") in {"Failed", "Succeeded"}
    return not ended and not pod["metadata"].get("deletionTimestamp")


def _rank(pod: Object) -> tuple[Any, ...]:
    """Who goes first: ActivePodsWithRanks.Less."""
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    cost = int(pod["metadata"].get("annotations", {}).get("controller.kubernetes.io/pod-deletion-cost", 0))
    phase = {"Pending": 0, "Unknown": 1, "Running": 2}[pod["status"]["phase"]]
    return (bool(pod["spec"].get("nodeName")), phase, conditions.get("Ready") == "True", cost)


def _behave(pod: Object) -> str:
    env = pod["spec"]["containers"][0].get("env", ())
    return str(next((one["value"] for one in env if one["name"] == "BEHAVE"), "serve"))


__all__ = ["HELLO", "LAST_WORDS", "NAMESPACE", "Life", "Refusal", "node", "stamp"]
