"""What was changed of a region, in words: settings by their names, credentials apart, values never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from accounts.models import AuditEntry, User
from endpoints.models import Region

CREDENTIALS: Final = ("ca", "cert", "key")  # of a Docker host
CLUSTER_CREDENTIALS: Final = ("kubeconfig", "context", "pull_secrets")
MOST: Final = 8  # names that one line lists
SHOWN: Final = 20  # entries of a page


def entries(of: Region | None = None) -> list[AuditEntry]:
    """The latest acts on regions, or on one."""
    found = AuditEntry.objects.filter(project=None, what__startswith="region.")
    return list((found.filter(message__contains=_named(of.slug)) if of else found)[:SHOWN])


def created(region: Region, *, by: User) -> None:
    _note("region.created", f"Added the region {_named(region.slug)}: {region.get_runtime_display()}.", by)


def changed(before: Region, after: Region, *, by: User) -> None:
    """One entry for each kind of act that a save was; none when nothing differs."""
    named = _named(after.slug)
    if before.enabled != after.enabled:
        what, said = ("enabled", "Offers") if after.enabled else ("disabled", "No longer offers")
        _note(f"region.{what}", f"{said} the region {named} for new endpoints{' again' * after.enabled}.", by)
    if credentials := list(_credentials(before.config, after.config)):
        _note(
            "region.credentials_replaced", f"Replaced credentials of the region {named}: {_some(credentials)}.", by
        )
    if settings := list(_settings(before, after)):
        _note("region.changed", f"Changed the region {named}: {_some(settings)}.", by)


def _settings(before: Region, after: Region) -> Iterable[str]:
    if before.name != after.name:
        yield f"its name to “{after.name}”"
    if before.runtime != after.runtime:
        yield f"its kind to {after.get_runtime_display()}"
    for name in sorted({*before.config, *after.config} - {"hosts", *CLUSTER_CREDENTIALS}):
        if before.config.get(name) != after.config.get(name):
            yield name.replace("_", " ")
    old, new = _hosts(before.config), _hosts(after.config)
    for host in sorted(old.keys() | new.keys()):
        if host not in new or host not in old:
            yield f"host {host} {'added' if host in new else 'removed'}"
        elif differ := _differing(old[host], new[host], leave=CREDENTIALS):
            yield f"host {host} ({', '.join(differ)})"


def _credentials(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    for name in CLUSTER_CREDENTIALS:
        if before.get(name) != after.get(name):
            yield name.replace("_", " ")
    old, new = _hosts(before), _hosts(after)
    for host in sorted(old.keys() & new.keys()):
        if differ := [name for name in CREDENTIALS if old[host].get(name) != new[host].get(name)]:
            yield f"{', '.join(differ)} of host {host}"


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], *, leave: Iterable[str]) -> list[str]:
    return sorted(name for name in {*old, *new} - set(leave) if old.get(name) != new.get(name))


def _hosts(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(host.get("name") or host.get("url")): host for host in config.get("hosts", ())}


def _named(slug: str) -> str:
    return f"“{slug}”"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return f"{', '.join(names[:MOST])}{more}"


def _note(what: str, message: str, by: User) -> None:
    AuditEntry.write(what, message, by=by)
