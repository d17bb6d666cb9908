"""What keeps a pod from running, or ended it: a code of the cluster's and a sentence for people. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Pod = Mapping[str, Any]
Numbers = Callable[[Pod], str]  # "It needs 4 vCPU…; the largest free is…", "" if that is not known

IMAGE = {
    "ErrImagePull": "can't be pulled",
    "ImagePullBackOff": "can't be pulled; the cluster tries again now and then",
    "InvalidImageName": "has a name that is none",
    "ErrImageNeverPull": "is not on the node and may not be pulled",
    "ImageInspectError": "can't be read on the node",
    "RegistryUnavailable": "can't be pulled: its registry doesn't answer",
    "SignatureValidationFailed": "has a signature that the node doesn't accept",
}
# What nodes report of registries, and what a person can do about it.
DENIED = re.compile(
    r"unauthorized|403 forbidden|authorization failed|basic auth credentials|invalid username|"
    r"authentication required|access denied|access to the resource is denied",
    re.IGNORECASE,
)
PULLS = (
    (
        re.compile(r"not found|manifest unknown|name unknown", re.IGNORECASE),
        "its registry has no such image or tag",
    ),
    (re.compile(r"x509|certificate", re.IGNORECASE), "the node doesn't trust its registry's certificate"),
    (
        re.compile(r"no such host|connection refused|time(d )?out|no route|deadline|handshake", re.IGNORECASE),
        "the node can't reach its registry",
    ),
)
CONTAINER = {
    "CreateContainerConfigError": "The container can't be set up",
    "CreateContainerError": "The container can't be made",
    "RunContainerError": "The container can't be started",
    "ContainerCannotRun": "The container can't be started",
    "StartError": "The container can't be started",
    "CreatePodSandboxError": "The pod's network can't be set up",
}
GONE = {
    "Evicted": "The node put it out",
    "Preempting": "Another pod of a higher priority took its place",
    "NodeLost": "Its node doesn't answer",
    "NodeAffinity": "Its node no longer fits its rules",
    "NodeShutdown": "Its node was shut down",
    "Terminated": "Its node was shut down",
    "DeadlineExceeded": "It ran out of the time it was given",
    "OutOfcpu": "Its node had too little CPU left",
    "OutOfmemory": "Its node had too little memory left",
    "OutOfpods": "Its node had no place for another pod",
    "UnexpectedAdmissionError": "Its node would not take it",
}
WORDS = 400  # characters of what a machine said


def holding(pod: Pod, waiting: tuple[Mapping[str, Any], ...], numbers: Numbers) -> tuple[str, str]:
    """Code and sentence for a pod that has not started; empty ones where it is only on its way.

    `waiting` are the statuses of its containers that wait, the fetching one first.
    """
    for status in waiting:
        found = status["state"]["waiting"]
        reason, said = str(found.get("reason", "")), short(found.get("message", ""))
        if reason in IMAGE:
            why = _why_not_pulled(pod, str(found.get("message", "")))
            told = f"{why} ({said})" if why else said
            return reason, f"The image {status.get('image', '')} {IMAGE[reason]}: {told}".rstrip(": ")
        if reason in CONTAINER:
            return reason, f"{CONTAINER[reason]}: {said}".rstrip(": ")
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        reason = str(scheduled.get("reason") or "Unschedulable")
        said = " ".join(part for part in (numbers(pod), short(scheduled.get("message", ""))) if part)
        return reason, f"No node takes it. {said}".strip()
    return "", ""


def _why_not_pulled(pod: Pod, said: str) -> str:
    """What is wrong between a node and a registry; "" where that is not told."""
    if DENIED.search(said):
        if (pod.get("spec") or {}).get("imagePullSecrets"):
            return "its registry does not accept the user name and password that were given for it"
        return "its registry has no such image, or wants a user name and password for it, and none is given"
    return next((why for pattern, why in PULLS if pattern.search(said)), "")


def death(end: Mapping[str, Any], limit: str) -> tuple[str, int | None, str]:
    """Code, exit code and words for a container's end, as its status tells it; `limit` is its memory's."""
    code = end.get("exitCode")
    said, reason = last_words(str(end.get("message") or "")), str(end.get("reason") or "")
    if reason == "OOMKilled":
        return reason, code, f"killed: it needed more memory than its limit{f' of {limit}' if limit else ''}"
    if reason in CONTAINER:
        return reason, code, f"{CONTAINER[reason]}: {short(end.get('message', ''))}".rstrip(": ")
    if reason == "ContainerStatusUnknown" or code is None:
        return reason or "Lost", None, "it ended unseen: its node no longer knows of it"
    how = f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
    return "", code, f"{how}: {said}" if said else how


def failure(pod: Pod) -> tuple[str, str]:
    """Code and words for a pod that the cluster has given up."""
    status = pod.get("status") or {}
    reason, said = str(status.get("reason") or ""), short(status.get("message", ""))
    target = condition(pod, "DisruptionTarget")
    if not reason and target.get("status") == "True":
        reason, said = str(target.get("reason", "")), short(target.get("message", ""))
    known = GONE.get(reason, "The cluster ended it")
    return reason or "Failed", f"{known}: {said}" if said else known


def fetching(end: Mapping[str, Any]) -> tuple[str, int | None, str]:
    """Code, exit code and words for a fetch that failed."""
    code = end.get("exitCode")
    said = last_words(str(end.get("message") or "")) or f"exit code {code}"
    if end.get("reason") == "OOMKilled":
        said = "it needed more memory than it was given"
    return "FetchFailed", code, f"The model was not fetched: {said}"


def condition(thing: Pod, kind: str) -> Mapping[str, Any]:
    """A condition of this kind; empty if it has none."""
    found = (thing.get("status") or {}).get("conditions") or ()
    return next((one for one in found if one.get("type") == kind), {})


def last_words(text: str) -> str:
    """The last line that says something: as it is, or the message of a line of JSON."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1].removeprefix("serving: ")
    if line.startswith("{"):
        try:
            told = json.loads(line)
            line = str(told.get("error") or told.get("message") or line)
        except ValueError:  # cut off in its middle
            pass
    return short(line)


def short(text: object) -> str:
    return re.sub(r"\s+", " ", str(text or "")).strip()[:WORDS]
