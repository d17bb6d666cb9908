"""What may be the name of an image."""

from __future__ import annotations

import re

PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
NAME = re.compile(rf"(?:{HOST}/)?{PART}(?:/{PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a registry could have it: `[host[:port]/]path[:tag][@digest]`."""
    return NAME.fullmatch(text) is not None and len(text) <= 512
