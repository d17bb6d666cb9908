"""Whether a region's namespace is there to be used.

An account that sees the whole cluster finds nothing in one that isn't, which would look like one that is idle.
"""

from __future__ import annotations

from typing import Any

from endpoints.runtimes.base import Unavailable
from endpoints.runtimes.kubernetes.api import Api, Refused, path_of
from endpoints.runtimes.kubernetes.reasons import condition, short
from endpoints.runtimes.kubernetes.words import ROLES

REMAINING = ("NamespaceContentRemaining", "NamespaceFinalizersRemaining")


def check(api: Api, name: str) -> str:
    """Unavailable, in words, for a namespace in which nothing can be started.

    What to add to an answer where it may be used but not be read, as by a role of before.
    """
    try:
        found = api.get(path_of("v1", "namespaces", name=name))
    except Refused as refused:
        if refused.status != 403:
            raise
        return _unread(api, name)
    if found["metadata"].get("deletionTimestamp"):
        raise Unavailable(
            f"Namespace {name} is being deleted{_held_by(found)}: nothing can be started in it. Once it is gone "
            f"make it anew, with the console's role ({ROLES}), or name another one in the region's settings."
        )
    return ""


def _unread(api: Api, name: str) -> str:
    """Tell a role that lacks one verb from none at all: where no namespace is, all is refused alike."""
    try:
        api.list(path_of("apps/v1", "deployments", name))
    except Refused as refused:
        if refused.status != 403:
            raise
        raise Unavailable(
            f"The console may not look into namespace {name}: it is not there, or the console's role is not bound "
            f"to this region's account in it ({ROLES})."
        ) from refused
    return f"; whether namespace {name} is being deleted is not known, as the role lacks get namespaces ({ROLES})"


def _held_by(found: dict[str, Any]) -> str:
    """What keeps it from being gone."""
    remaining = [one for kind in REMAINING if (one := condition(found, kind)).get("status") == "True"]
    said = "; ".join(short(one.get("message")) for one in remaining)
    return f" ({said})" if said else ""
