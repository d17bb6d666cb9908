"""From a pod as the API tells it to instances: which lives there are, how each is, and why."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from endpoints.runtimes.base import Observed, Phase
from endpoints.runtimes.kubernetes import labels, lives, removal, room

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
BORN = "2026-11-28T11:00:00Z"
NAME = "endpoint-7-r3-6b9f7c-abcde"
WAITING, RUNNING = {"waiting": {"reason": "ContainerCreating"}}, {"running": {"startedAt": BORN}}


def pod(main: Any = None, fetch: Any = None, *, name: str = NAME, **more: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": "Running", "podIP": "10.0.0.9", **more.pop("status", {})}
    status["containerStatuses"] = [one(main or {"state": WAITING}, "model")]
    if fetch:
        status["initContainerStatuses"] = [one(fetch, "fetch")]
    meta = {"name": name, "creationTimestamp": BORN, "labels": {labels.OWNER: "endpoint-7", labels.REVISION: "3"}}
    container = {
        "name": "model",
        "ports": [{"containerPort": 9000}],
        "resources": {"limits": {"memory": str(1 << 30)}},
    }
    spec = {"containers": [container], "nodeName": "n1", **more.pop("spec", {})}
    return {"metadata": {**meta, **more}, "spec": spec, "status": status}


def one(status: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example/llama:1",
        "restartCount": 0,
        "state": {},
        "lastState": {},
        **status,
    }


def end(code: int, message: str = "", *, reason: str = "Error", lived: int = 30) -> dict[str, Any]:
    finished = datetime(2026, 11, 28, 11, 30, tzinfo=UTC)
    times = {"startedAt": finished - timedelta(seconds=lived), "finishedAt": finished}
    written = {name: at.strftime("%Y-%m-%dT%H:%M:%SZ") for name, at in times.items()}
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, **written}}


def back_off(code: int, count: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    return {"state": waiting, "lastState": end(code, message, reason=reason), "restartCount": count}


def seen(body: dict[str, Any], at: datetime = AT) -> dict[str, Observed]:
    return lives.observed(body, at, lambda _: "It needs 8 vCPU; the largest that is free on one node is 2 vCPU.")


def the_one(body: dict[str, Any], at: datetime = AT) -> Observed:
    (only,) = seen(body, at).values()
    return only


def test_one_that_runs_says_where() -> None:
    found = the_one(pod({"state": RUNNING}))
    assert (found.name, found.owner, found.revision) == (NAME, "endpoint-7", 3)
    assert (found.phase, found.address, found.message) == (Phase.RUNNING, "http://10.0.0.9:9000", "")
    assert the_one(pod({"state": RUNNING}, status={"podIP": "fd00::9"})).address == "http://[fd00::9]:9000"
    assert the_one(pod({"state": RUNNING}, status={"podIP": None})).phase == Phase.STARTING


UNSCHEDULABLE = [
    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: 3 cpu."}
]


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (pod(status={"phase": "Pending", "conditions": UNSCHEDULABLE}), "Unschedulable", "needs 8 vCPU"),
        (pod(status={"phase": "Pending", "conditions": UNSCHEDULABLE}), "Unschedulable", "0/3 nodes: 3 cpu"),
        (
            pod({"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}),
            "ErrImagePull",
            "llama:1",
        ),
        (pod({"state": {"waiting": {"reason": "ImagePullBackOff"}}}), "ImagePullBackOff", "can't be pulled"),
        (pod({"state": {"waiting": {"reason": "InvalidImageName"}}}), "InvalidImageName", "name that is none"),
        (
            pod(
                {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}}
            ),
            "CreateContainerConfigError",
            'secret "x" not found',
        ),
        (
            pod(None, {"state": {"waiting": {"reason": "ImagePullBackOff"}}}),
            "ImagePullBackOff",
            "can't be pulled",
        ),
        (pod(None, {"state": RUNNING}), "", ""),
    ],
)
def test_what_keeps_a_pod_from_starting_has_a_code_and_words(
    body: dict[str, Any], reason: str, words: str
) -> None:
    found = the_one(body)
    assert (found.phase, found.reason, found.address) == (Phase.STARTING, reason, None)
    assert words in found.message


@pytest.mark.parametrize(
    ("said", "secrets", "words"),
    [
        ("failed to resolve image: unexpected status from HEAD request: 401 Unauthorized", True, "not accept the"),
        ("failed to fetch oauth token: unexpected status from GET request: 403 Forbidden: denied", True, "accept"),
        (
            "pull access denied: authorization failed: no basic auth credentials",
            False,
            "password for it, and none",
        ),
        (
            "Back-off pulling image: ErrImagePull: failed to resolve image: auth/x:2: not found",
            True,
            "no such image",
        ),
        (
            "failed to do request: dial tcp: lookup ghcr.io: no such host",
            False,
            "the node can't reach its registry",
        ),
        ("dial tcp 10.0.0.1:443: connect: connection refused", False, "the node can't reach its registry"),
        ("tls: failed to verify certificate: x509: unknown authority", False, "doesn't trust its registry's"),
    ],
)
def test_an_image_that_can_t_be_pulled_says_what_to_mend(said: str, secrets: bool, words: str) -> None:
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": said}}}
    spec = {"imagePullSecrets": [{"name": "endpoint-7-r3-pull"}]} if secrets else {}
    message = lives.observed(pod(waiting, spec=spec), AT)[NAME].message
    assert words in message
    assert said in message


@pytest.mark.parametrize(
    ("status", "code", "reason", "message"),
    [
        (back_off(1, 3, "loading\nserving: no such layer\n"), 1, "CrashLoopBackOff", "exit code 1: no such layer"),
        (back_off(137, 2, reason="OOMKilled"), 137, "OOMKilled", "more memory than its limit of 1 GiB"),
        (back_off(139, 1), 139, "CrashLoopBackOff", "killed by signal 11"),
        (back_off(65, 2, "serving: no GGUF"), 65, "CrashLoopBackOff", "exit code 65: no GGUF"),
        (back_off(128, 2, "exec: serve: not found", "StartError"), 128, "StartError", "exec: serve: not found"),
    ],
)
def test_a_pod_that_is_made_to_wait_has_ended(
    status: dict[str, Any], code: int, reason: str, message: str
) -> None:
    found = the_one(pod(status))
    assert found.name == f"{NAME}.{status['restartCount']}"
    assert (found.phase, found.exit_code, found.reason) == (Phase.EXITED, code, reason)
    assert message in found.message
    assert found.finished_at is not None
    assert found.started_at <= found.finished_at
    assert lives.is_down(pod(status))


def test_a_first_crash_is_an_end_and_the_next_life_is_on_its_way() -> None:
    body = pod({"state": end(1, "gave up")})
    found = seen(body)
    assert [(one.name, one.phase) for one in found.values()] == [
        (NAME, Phase.EXITED),
        (f"{NAME}.1", Phase.STARTING),
    ]
    assert found[NAME].message == "exit code 1: gave up"
    assert not lives.is_down(body)


def test_the_next_life_is_an_instance_of_its_own_that_began_when_the_last_one_ended() -> None:
    found = seen(pod({"state": RUNNING, "restartCount": 1, "lastState": end(137)}))
    assert found[NAME].exit_code == 137
    assert found[f"{NAME}.1"].phase == Phase.RUNNING
    assert found[f"{NAME}.1"].started_at == found[NAME].finished_at


def test_after_a_long_life_the_kubelet_starts_again_at_once_after_a_short_second_one_it_doesn_t() -> None:
    long = pod({"state": end(1, lived=3600), "restartCount": 4})
    assert set(seen(long)) == {f"{NAME}.4", f"{NAME}.5"}
    short = pod({"state": end(1, lived=5), "restartCount": 4})
    assert set(seen(short)) == {f"{NAME}.4"}
    assert lives.is_down(short)


def test_a_forgotten_life_is_not_told_of_again() -> None:
    body = pod({"state": RUNNING, "restartCount": 1, "lastState": end(1)}, annotations={labels.FORGOTTEN: "0"})
    assert set(seen(body)) == {f"{NAME}.1"}


def test_a_fetch_that_fails_ends_a_life_with_its_sentence() -> None:
    said = '{"done": 1, "total": 2}\n{"error": "The bucket models is not there.", "code": "missing"}'
    body = pod(None, {"state": end(1, said)})
    first = seen(body)[NAME]
    assert (first.phase, first.reason) == (Phase.EXITED, "FetchFailed")
    assert first.message == "The model was not fetched: The bucket models is not there."
    again = pod({"state": RUNNING}, {"state": end(0), "restartCount": 1, "lastState": end(1, said)})
    assert seen(again)[f"{NAME}.1"].phase == Phase.RUNNING


def test_one_on_its_way_out_runs_until_it_is_gone() -> None:
    leaving = {"deletionTimestamp": "2026-11-28T12:00:30Z"}
    assert the_one(pod({"state": RUNNING}, **leaving)).phase == Phase.RUNNING
    assert seen(pod(**leaving)) == {}  # it never ran
    asked = pod({"state": end(0)}, **leaving, annotations={labels.RETIRED: "true"})
    assert (the_one(asked).asked, the_one(asked).message) == (True, "stopped when asked")
    drained = pod({"state": end(1, "gave up")}, **leaving)
    assert (the_one(drained).asked, the_one(drained).message) == (False, "exit code 1: gave up")


def test_a_node_that_doesn_t_confirm_the_end_is_lost_with_it() -> None:
    body = pod({"state": RUNNING}, deletionTimestamp="2026-11-28T12:00:00Z")
    assert the_one(body, AT + timedelta(seconds=59)).phase == Phase.RUNNING
    found = the_one(body, AT + timedelta(seconds=61))
    assert (found.phase, found.exit_code, found.reason) == (Phase.EXITED, None, "NodeLost")
    assert "n1" in found.message


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            "Evicted",
            "low on resource: memory",
        ),
        ({"reason": "OutOfmemory"}, "OutOfmemory", "too little memory"),
        ({"reason": "DeadlineExceeded"}, "DeadlineExceeded", "ran out of the time"),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            "PreemptionByScheduler",
            "ended it",
        ),
    ],
)
def test_a_pod_that_the_cluster_gave_up_says_why(status: dict[str, Any], reason: str, words: str) -> None:
    found = the_one(pod(status={"phase": "Failed", **status}))
    assert (found.phase, found.reason, found.asked) == (Phase.EXITED, reason, False)
    assert words in found.message


# ── who goes ────────────────────────────────────────────────────────────────────────────────────
def ready(name: str, born: str, *, is_ready: bool = True, **more: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(is_ready)}]
    main = {"state": RUNNING} if is_ready else None
    return pod(main, name=name, status={"conditions": conditions}, **more) | {
        "metadata": {**pod()["metadata"], "name": name, "creationTimestamp": born}
    }


OLD, NEW, UNREADY = ready("a", BORN), ready("b", "2026-11-28T11:10:00Z"), ready("c", BORN, is_ready=False)


def test_the_newest_of_too_many_goes_and_the_cluster_would_choose_the_same() -> None:
    assert removal.leaving([NEW, OLD], 1, ()) == removal.Leaving(("b",), 1, by_name=False)


def test_a_ready_one_that_is_named_goes_by_name_where_the_cluster_would_take_an_unready_one() -> None:
    assert removal.leaving([OLD, UNREADY], 1, ("a",)) == removal.Leaving(("a",), 1, by_name=True, guarded=("c",))
    assert removal.leaving([OLD, UNREADY], 1, ("c",)) == removal.Leaving(("c",), 1, by_name=False)
    assert removal.leaving([OLD, UNREADY], 2, ("a",)).by_name is False  # one is made anew, none is chosen


def test_a_pod_that_is_down_goes_in_any_case() -> None:
    down = pod(back_off(1, 2), name="d")
    assert removal.leaving([OLD, down], 2, ()).pods == ("d",)


def test_a_life_that_is_over_can_t_be_asked_to_go() -> None:
    again = pod({"state": RUNNING, "restartCount": 1, "lastState": end(1)}, name="a")
    assert removal.leaving([again], 1, ("a",)).pods == ()
    assert removal.leaving([again], 0, ("a.1",)).pods == ("a",)


# ── room ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", 0.5),
        ("2", 2),
        ("1.5", 1.5),
        ("16Gi", 16 << 30),
        ("1e3", 1000),
        ("128974848", 128974848),
        ("5M", 5e6),
    ],
)
def test_quantities_are_read_as_the_api_writes_them(text: str, value: float) -> None:
    assert float(room.quantity(text)) == value


def test_a_pod_is_promised_its_hungriest_step() -> None:
    def container(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    body = {"spec": {"containers": [container("1"), container("2")], "initContainers": [container("5")]}}
    assert room.promised(body, "gpu").cpu == 5000
    body["spec"]["initContainers"] = [container("1", restartPolicy="Always"), container("2500m")]
    assert room.promised(body, "gpu").cpu == 4000


def test_a_container_that_is_just_being_made_again_is_the_next_life_and_no_end_of_it() -> None:
    told = seen(pod({"state": WAITING, "lastState": end(137, reason="OOMKilled"), "restartCount": 1}))
    assert {name: one.phase for name, one in told.items()} == {NAME: Phase.EXITED, f"{NAME}.1": Phase.STARTING}


def test_one_that_can_t_be_started_has_not_lived_since_1970() -> None:
    """What a kubelet on containerd writes between two tries, before it says CrashLoopBackOff."""
    words = 'exec: "serve": executable file not found in $PATH'
    last = end(128, words, reason="StartError")
    last["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    body = pod({"state": {"waiting": {"reason": "RunContainerError"}}, "lastState": last, "restartCount": 2})
    (found,) = seen(body).values()
    assert (found.phase, found.reason) == (Phase.EXITED, "StartError")
    assert found.started_at == found.finished_at
    assert lives.is_down(body)  # a pause follows, so another pod is made
