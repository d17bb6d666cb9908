"""An image of a user's own, looked at in its registry before a node pulls it."""

from __future__ import annotations

from collections.abc import Sequence

from endpoints.images.door import Door
from endpoints.images.names import Name
from endpoints.images.registry import look
from endpoints.runtimes.base import Command, Report
from endpoints.runtimes.kubernetes.podspec import USER
from endpoints.runtimes.own_image import judged
from endpoints.sources.base import SourceProblem


def told(name: Name, command: Command, report: Report, *, architectures: Sequence[str], private: bool) -> str:
    """Tell what it brings of what it must; one sentence. Rejected if it was seen and can't run.

    That it isn't seen from here says nothing against it: a node may have it, a mirror, or credentials of its own.
    """
    if command.image is None:
        return ""
    door = Door(name, command.image.username, command.image.password, private=private)
    try:
        seen = look(door, architectures)
    except SourceProblem as problem:
        report(f"Look at this: image: {problem.message}")
        return "It was not seen from here, see the log; a node may have it already, or a way of its own."
    report(f"Good: image: {seen.digest} is what the name means now, for {', '.join(seen.platforms)}.")
    user = f"{USER}:{USER}"
    said = judged(seen.contents, command, report, user=user, architectures=architectures)
    return f"It means {seen.digest[:19]}… now. {said}"
