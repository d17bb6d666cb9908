"""The people and things that tests speak of: Alice owns, Bob is a member, Charlie is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from accounts.models import ApiKey, Membership, Project, User
from accounts.roles import Role
from endpoints.models import (
    Deployment,
    Endpoint,
    Instance,
    InstanceType,
    Phase,
    Region,
    Revision,
)
from endpoints.models.deployment import DeploymentState, InstanceState, PhaseState
from endpoints.spec import GIB, ScalingSpec, SourceSpec, Spec
from endpoints.status import Status

PASSWORD = "correct horse battery staple"
_numbers = itertools.count(1)


def user(name: str = "alice", **fields: Any) -> User:
    email = f"{name}@example.com"
    return User.objects.filter(email=email).first() or User.objects.create_user(
        email, PASSWORD, name=name, **fields
    )


def project(name: str = "Alpha", owner: User | None = None) -> Project:
    return Project.start(name, owner=owner or user("alice"))


def member(of: Project, name: str = "bob", role: str = Role.DEVELOPER) -> User:
    person = user(name)
    Membership.objects.update_or_create(project=of, user=person, defaults={"role": role})
    return person


def key(of: Project, *scopes: str, **fields: Any) -> tuple[ApiKey, str]:
    return ApiKey.issue(of, name="test", scopes=list(scopes) or ["inference"], by=None, **fields)


def region(slug: str = "local", **fields: Any) -> Region:
    capacity: dict[str, Any] = {"cpu_millis": 64_000, "cpu_millis_free": 64_000, "memory_bytes": 256 * GIB}
    capacity |= {
        "memory_bytes_free": 256 * GIB,
        "gpus": 0,
        "gpus_free": 0,
        "reason": "no NVIDIA driver on this machine",
    }
    defaults = {"name": "This machine", "capacity": capacity, "capacity_at": timezone.now()} | fields
    return Region.objects.get_or_create(slug=slug, defaults=defaults)[0]


def instance_type(slug: str = "c6i.large", **fields: Any) -> InstanceType:
    defaults = {"family": "cpu", "vcpus": 2, "memory_bytes": 4 * GIB} | fields
    return InstanceType.objects.get_or_create(slug=slug, defaults=defaults)[0]


def spec(name: str = "", **changes: Any) -> Spec:
    wish = Spec(
        name=name or f"endpoint-{next(_numbers)}",
        region="local",
        instance_type="c6i.large",
        source=SourceSpec(kind="registry", model="smollm2-135m-instruct", version=1),
        scaling=ScalingSpec(),
    )
    return replace(wish, **changes)


def endpoint(
    in_project: Project | None = None,
    *,
    ready: int = 0,
    name: str = "",
    at: datetime | None = None,
    **columns: Any,
) -> Endpoint:
    """An endpoint as launched; with `ready`, one that serves with that many instances."""
    region()
    instance_type()
    owner = in_project or Project.objects.first() or project()
    made = Endpoint.launch(owner, spec(name), by=owner.memberships.first().user, at=at)  # type: ignore[union-attr]
    if ready:
        serve(made, ready, at=at)
    if columns:
        Endpoint.objects.filter(pk=made.pk).update(**columns)
        made.refresh_from_db()
    return made


def serve(of: Endpoint, ready: int, at: datetime | None = None) -> None:
    """Bring it to Active as the controller would have left it."""
    at = at or timezone.now()
    revision = of.revisions.latest("number")
    Deployment.objects.filter(endpoint=of).update(state=DeploymentState.SUCCEEDED, ended_at=at)
    Phase.objects.filter(deployment__endpoint=of).update(state=PhaseState.DONE, started_at=at, ended_at=at)
    for _ in range(ready):
        instance(of, revision, at=at)
    Endpoint.objects.filter(pk=of.pk).update(
        serving_revision=revision, wanted=ready, status=Status.ACTIVE, observed_generation=of.generation
    )
    of.refresh_from_db()


def instance(
    of: Endpoint, revision: Revision | None = None, *, at: datetime | None = None, **fields: Any
) -> Instance:
    at = at or timezone.now()
    number = next(_numbers)
    return Instance.objects.create(
        **{
            "endpoint": of,
            "revision": revision or of.revisions.latest("number"),
            "name": f"{of.owner}-r1-t{number:04}",
            "state": InstanceState.READY,
            "address": f"http://127.0.0.1:{20000 + number}",
            "started_at": at - timedelta(seconds=5),
            "ready_at": at,
        }
        | fields
    )
