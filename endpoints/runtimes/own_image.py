"""The requirements of an image of a user's own, as a runtime's `prepare` tells of them."""

from __future__ import annotations

from collections.abc import Sequence

from endpoints.images.contents import Contents
from endpoints.images.requirements import Asked, report_of, summary, wrong
from endpoints.runtimes.base import MODEL_FOLDER, Command, Rejected, Report


def judged(found: Contents, command: Command, report: Report, *, user: str, architectures: Sequence[str]) -> str:
    """Tell line by line what it brings; how it stands, in one sentence. Rejected if it can't run.

    `user` is who it will run as, `architectures` those of the machines where it may.
    """
    image = command.image
    if image is None:
        raise Rejected("there is nothing to run: no image")
    asked = Asked(
        image.name,
        image.port,
        image.health_path,
        command.startup_seconds,
        command=bool(image.command),
        model=MODEL_FOLDER if command.model or command.fetch else "",
        user=user,
        architectures=architectures,
    )
    lines = report_of(found, asked)
    if why := wrong(lines):
        raise Rejected(why)
    for line in lines:
        report(line.said)
    return summary(lines)
