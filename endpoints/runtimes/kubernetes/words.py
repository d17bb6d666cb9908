"""From what an API server refuses to what people read, and to the two errors that a runtime may raise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from endpoints.runtimes.base import Rejected, Unavailable
from endpoints.runtimes.kubernetes.api import Refused, Silent

DENIED = re.compile(r'cannot (\S+) resource "([^"]+)"(?: in API group "([^"]*)")?')
NO_NAMESPACE = re.compile(r'namespaces "([^"]+)" not found')
NEVER = {400, 403, 413, 422}  # asking the same again changes nothing
ROLES = "see deploy/kubernetes/region"


@contextmanager
def outage(place: str) -> Iterator[None]:
    """For what only looks: whatever the cluster refuses is an outage, never an answer."""
    try:
        yield
    except (Refused, Silent) as error:
        raise Unavailable(sentence(error, place)) from error


@contextmanager
def asking(place: str) -> Iterator[None]:
    """For what changes something: what can never be is Rejected, all else an outage."""
    try:
        yield
    except Refused as refused:
        final = refused.status in NEVER and "exceeded quota" not in refused.message
        if final or refused.is_field_conflict:
            raise Rejected(sentence(refused, place)) from refused
        raise Unavailable(sentence(refused, place)) from refused
    except Silent as silent:
        raise Unavailable(sentence(silent, place)) from silent


def sentence(error: Refused | Silent, place: str) -> str:
    """What is wrong and, where somebody can mend it, what to do."""
    if isinstance(error, Silent):
        return str(error)
    if error.is_field_conflict:
        return _conflict(error)
    if error.status == 401:
        return f"The cluster does not accept this region's credentials for {place} (401); renew its kubeconfig."
    if error.status == 403 and (denied := DENIED.search(error.message)):
        verb, resource, group = denied.groups()
        what = f"{resource}.{group}" if group else resource
        return f"The console may not {verb} {what} in {place}: its role lacks that verb ({ROLES})."
    if error.status == 422 and error.causes:
        said = "; ".join(f"{one.get('field', '')}: {one.get('message', '')}" for one in error.causes)
        return f"The cluster finds this invalid: {said}"
    if error.status == 404 and (missing := NO_NAMESPACE.search(error.message)):
        return f"The cluster has no namespace {missing.group(1)}: make it, with the console's role ({ROLES})."
    if error.status == 403 and "being terminated" in error.message:
        return f"Nothing can be made in {place}: it is being deleted."
    if error.status == 404 and error.verb in {"create", "patch", "list"}:
        return f"The cluster has no {error.resource or 'such thing'} in {place}: {error.message}"
    return f"The cluster refused to {error.verb} {error.resource} in {place} ({error.status}): {error.message}"


def _conflict(refused: Refused) -> str:
    fields = [str(one.get("field", "")) for one in refused.causes if one.get("reason") == "FieldManagerConflict"]
    said = " ".join(str(one.get("message", "")) for one in refused.causes)
    who = sorted(set(re.findall(r'conflict with "([^"]+)"', said)))
    return (
        f"Somebody else ({', '.join(who) or 'another field manager'}) has set {', '.join(fields)} of our "
        f"{refused.resource}: take that back, or delete the object, and deploy again."
    )
