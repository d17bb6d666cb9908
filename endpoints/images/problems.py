"""A registry's answers in words: what is wrong with an image, and what to do.

`field` of each is the container's: image, or registry_secret. None of them says more than what was seen from here:
a host may have an image, or reach a registry, that this console doesn't.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2

from endpoints.images.names import Name
from endpoints.sources.base import SourceProblem
from endpoints.sources.network import bad_certificate, unreachable

IMAGE: Final = "image"
SECRET: Final = "registry_secret"  # noqa: S105  the field's name
NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "RECORD LAYER FAILURE", "HTTP_REQUEST")
TAGS: Final = 5  # that are named


def of_certificate(error: httpx2.HTTPError) -> bool:
    return "certificate" in str(error).lower()


def unreached(name: Name, error: httpx2.HTTPError, host: str = "") -> SourceProblem:
    """Nothing was heard from it, or from its token service `host`."""
    where = host or name.server
    if of_certificate(error):
        return bad_certificate(where, IMAGE)
    if any(sign in str(error).upper() for sign in NO_TLS):
        said = f"{where} doesn't speak https there. An image is looked at over https only."
        return SourceProblem("no_tls", said, IMAGE)
    return unreachable(where, error, IMAGE)


def slow(name: Name) -> SourceProblem:
    return SourceProblem("timeout", f"{name.registry} didn't answer in time. Try again.", IMAGE, passing=True)


def no_registry(name: Name) -> SourceProblem:
    said = f"{name.registry} doesn't answer as a registry does. Check the image's name."
    return SourceProblem("no_registry", said, IMAGE)


def refused(name: Name, username: str, *, at_door: bool = False) -> SourceProblem:
    """A 401 or 403. `at_door`: of the token service, which knows who may come in before it is asked for what."""
    if not username:
        said = (
            f"{name.registry} doesn't give {name.path} to everybody: it is private, or there is no such image. "
            "Check its name; for a private one give a user name and a password."
        )
        return SourceProblem("private", said, IMAGE)
    if at_door:
        said = (
            f"{name.registry} doesn't accept the password of “{username}”: it is wrong, expired or revoked, or "
            f"not for {name.path}."
        )
        return SourceProblem("bad_credentials", said, SECRET)
    said = (
        f"{name.registry} doesn't let “{username}” pull {name.path}: the password is wrong, the user lacks the "
        "right, or there is no such image."
    )
    return SourceProblem("forbidden", said, SECRET)


def no_image(name: Name) -> SourceProblem:
    hub = " A name without a registry in front means Docker Hub." * (name.registry == "Docker Hub")
    said = f"{name.registry} has no image {name.path}, or doesn't show it to this user.{hub}"
    return SourceProblem("no_image", said, IMAGE)


def no_tag(name: Name, tags: Sequence[str]) -> SourceProblem:
    some = ", ".join(tags[-TAGS:])
    there = f" There is, among others: {some}." if len(tags) > TAGS else f" There is: {some}." if tags else ""
    what = f"no version {name.digest}" if name.digest else f"no tag “{name.tag}”"
    return SourceProblem("no_tag", f"{name.path} at {name.registry} has {what}.{there}", IMAGE)


def answered(name: Name, status: int, headers: httpx2.Headers) -> SourceProblem:
    """Any other status than one that says something of the image."""
    if status == 429:
        said = f"{name.registry} asks for fewer requests (429). Try again {_when(headers)}, or as a user of it."
        return SourceProblem("rate_limited", said, IMAGE, passing=True)
    if status >= 500:
        said = f"{name.registry} has a problem of its own ({status}). Try again."
        return SourceProblem("registry_error", said, IMAGE, passing=True)
    return SourceProblem("registry_error", f"{name.registry} answered {status} about {name.path}.", IMAGE)


def artifact(name: Name, kind: str) -> SourceProblem:
    named = f" ({kind})" if kind else ""
    said = f"{name.path} is no image but another artifact{named}, such as a chart or weights. It can't be started."
    return SourceProblem("no_container", said, IMAGE)


def outdated(name: Name) -> SourceProblem:
    said = f"{name.path} is in the registry's first format, which engines no longer pull. Build and push it again."
    return SourceProblem("outdated", said, IMAGE)


def damaged(name: Name) -> SourceProblem:
    said = (
        f"What {name.registry} sent of {name.path} is not what its digest says. Try again, or push the image anew."
    )
    return SourceProblem("damaged", said, IMAGE, passing=True)


def _when(headers: httpx2.Headers) -> str:
    """From Retry-After in either form, else from the window that Docker Hub names: `100;w=21600`."""
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return f"in {_span(int(after[:9]))}"
    try:
        return f"in {_span(max(1, round(parsedate_to_datetime(after).timestamp() - time.time())))}"
    except (ValueError, TypeError, OverflowError):
        window = headers.get("RateLimit-Limit", "").partition("w=")[2].partition(";")[0]
    return f"within {_span(int(window[:9]))}" if window.isdecimal() else "in a few minutes"


def _span(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{-(-seconds // 60)} minutes" if seconds < 7200 else f"{-(-seconds // 3600)} hours"
