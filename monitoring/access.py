"""Who may listen, asked of the database at connect, at each action and every few seconds in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from channels.auth import get_user
from channels.db import database_sync_to_async
from django.contrib.sessions.backends.db import SessionStore

from accounts.models import Project, User
from endpoints import bell
from endpoints.models import Endpoint, Instance
from monitoring import logs
from monitoring.logs import Page

NOT_LOGGED_IN = 4401
NOT_FOUND = 4404


@dataclass(frozen=True)
class Door:
    """What a socket listens to: a project, or one endpoint of it."""

    project_id: int
    endpoint_id: int | None

    @property
    def group(self) -> str:
        if self.endpoint_id is None:
            return bell.project_group(self.project_id)
        return bell.endpoint_group(self.endpoint_id)


class Closed(Exception):
    """This person may not listen here; `code` is the socket's close code."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


async def person(scope: Mapping[str, Any]) -> User:
    """Who this is by the session as it stands in the database now. Raises Closed once they are logged out."""
    key = getattr(scope.get("session"), "session_key", None)
    fresh: Any = {"session": SessionStore(session_key=key)}
    user = await get_user(fresh) if key else None
    if not isinstance(user, User) or not user.is_active:
        raise Closed(NOT_LOGGED_IN)
    return user


@database_sync_to_async
def door(user: User, project: str, endpoint: str | None) -> Door:
    """The door by its names. Raises Closed: missing and forbidden look the same."""
    if endpoint is None:
        found = Project.objects.visible_to(user).filter(slug=project).first()
        if found is None:
            raise Closed(NOT_FOUND)
        return Door(found.pk, None)
    one = Endpoint.objects.visible_to(user).filter(project__slug=project, name=endpoint).first()
    if one is None:
        raise Closed(NOT_FOUND)
    return Door(one.project_id, one.pk)


@database_sync_to_async
def still(user: User, to: Door) -> None:
    """Raises Closed when the person lost access, or what they listen to is gone."""
    if to.endpoint_id is None:
        open_ = Project.objects.visible_to(user).filter(pk=to.project_id).exists()
    else:
        open_ = Endpoint.objects.visible_to(user).filter(pk=to.endpoint_id).exists()
    if not open_:
        raise Closed(NOT_FOUND)


@database_sync_to_async
def endpoint_named(user: User, to: Door, name: str) -> int | None:
    """The endpoint that an action on a project's page means."""
    rows = Endpoint.objects.visible_to(user).filter(project_id=to.project_id, name=name)
    return rows.values_list("pk", flat=True).first()


@database_sync_to_async
def instance_named(user: User, to: Door, name: str) -> Instance | None:
    """The instance whose log this person may read at this door; None for any other reason."""
    if to.endpoint_id is None:
        return None
    instance = Instance.objects.select_related("endpoint").filter(endpoint=to.endpoint_id, name=name).first()
    return instance if instance is not None and logs.may_read(user, instance.endpoint) else None


@database_sync_to_async
def lines_after(instance: Instance, after: int, limit: int) -> Page:
    return logs.page(instance, after=after, limit=limit)


@database_sync_to_async
def newest_lines(instance: Instance, limit: int) -> Page:
    return logs.page(instance, limit=limit)
