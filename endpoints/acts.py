"""What people ask of an endpoint, from a form or over a socket: one table of verbs with one wording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.urls import reverse

from accounts.models import User
from accounts.refused import Refused
from endpoints.models import Endpoint

LOOK_ONLY = (
    "You can look but not change this endpoint. Ask an owner or admin of the project for the developer role."
)
NOT_THERE = "This endpoint does not exist any more, or you have no access to it."


@dataclass(frozen=True)
class Result:
    """The answer to an action; `id` is the page's own, given back."""

    ok: bool
    message: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self, id_: Any = None) -> dict[str, Any]:
        return {"type": "result", "ok": self.ok, "message": self.message, "id": id_, **self.more}


def act(user: User, endpoint_id: int, verb: str, args: Mapping[str, Any]) -> Result:
    """Do it as this person, with the rights they have at this moment."""
    endpoint = Endpoint.objects.visible_to(user).filter(pk=endpoint_id).first()
    if endpoint is None:
        return Result(False, NOT_THERE)
    if not Endpoint.objects.editable_by(user).filter(pk=endpoint_id).exists():
        return Result(False, LOOK_ONLY)
    do = VERBS.get(verb)
    if do is None:
        return Result(False, f"There is no action “{verb[:40]}”. Actions are {', '.join(VERBS)}.")
    try:
        return do(endpoint, user, args)
    except Refused as refusal:
        more = {"field": refusal.field} if refusal.field else {}
        return Result(False, str(refusal), {"code": refusal.code, **more})


def _whole(args: Mapping[str, Any], name: str) -> int:
    try:
        return int(str(args.get(name, "")).strip())
    except ValueError:
        raise Refused(f"Say how many {name}, as a whole number.", field=name, code="invalid") from None


def _emergency(endpoint: Endpoint, user: User, args: Mapping[str, Any]) -> Result:
    instances, minutes = _whole(args, "instances"), _whole(args, "minutes")
    endpoint.emergency_scale(instances, minutes=minutes, by=user)
    return Result(True, f"Scaling to {instances} instances at once, held for {minutes} minutes.")


def _end_emergency(endpoint: Endpoint, user: User, _args: Mapping[str, Any]) -> Result:
    done = endpoint.end_emergency(by=user)
    return Result(True, "The emergency was ended." if done else "No emergency holds any instances.")


def _scale(endpoint: Endpoint, user: User, args: Mapping[str, Any]) -> Result:
    instances = _whole(args, "instances")
    before = endpoint.wanted
    if not endpoint.scale(instances, by=user):
        return Result(True, f"{instances} instances were wanted already.")
    return Result(True, f"Scaling from {before} to {instances} instances.")


def _stop(endpoint: Endpoint, user: User, _args: Mapping[str, Any]) -> Result:
    done = endpoint.stop(by=user)
    return Result(True, f"Stopping {endpoint}." if done else f"{endpoint} was stopped already.")


def _start(endpoint: Endpoint, user: User, _args: Mapping[str, Any]) -> Result:
    done = endpoint.start(by=user)
    return Result(True, f"Starting {endpoint}." if done else f"{endpoint} runs already.")


def _restart(endpoint: Endpoint, user: User, _args: Mapping[str, Any]) -> Result:
    endpoint.restart(by=user)
    return Result(True, f"Restarting {endpoint}, one instance at a time.")


def _delete(endpoint: Endpoint, user: User, args: Mapping[str, Any]) -> Result:
    """As the form: whoever deletes has typed the name."""
    typed = str(args.get("confirm") or args.get("name") or "")
    if typed != endpoint.name:
        raise Refused(
            f"Type the endpoint's name, “{endpoint}”, to delete it.", field="confirm", code="unconfirmed"
        )
    done = endpoint.delete_endpoint(by=user)
    message = f"Deleting {endpoint}." if done else f"{endpoint} is being deleted already."
    return Result(True, message, {"url": reverse("endpoints:list", args=[endpoint.project.slug])})


def _cancel(endpoint: Endpoint, user: User, _args: Mapping[str, Any]) -> Result:
    done = endpoint.cancel(by=user)
    return Result(True, "The deployment was cancelled." if done else "There is no deployment under way.")


VERBS: dict[str, Callable[[Endpoint, User, Mapping[str, Any]], Result]] = {
    "scale": _scale,
    "emergency": _emergency,
    "end-emergency": _end_emergency,
    "stop": _stop,
    "start": _start,
    "restart": _restart,
    "delete": _delete,
    "cancel": _cancel,
}
