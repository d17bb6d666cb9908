"""What is said of an image of a user's own before it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from endpoints.images.contents import Contents, inspected
from endpoints.images.requirements import runs_as
from endpoints.runtimes.base import Command, Image, Rejected
from endpoints.runtimes.own_image import judged

IMAGE = Image("team/own:1", port=8000, health_path="/ready")
COMMAND = Command(engine="custom", model="/data/m", alias="demo", image=IMAGE, startup_seconds=90)
CONFIG = {"Cmd": ["/serve"], "ExposedPorts": {"8000/tcp": {}}, "User": "app"}


def said(command: Command = COMMAND, user: str = "app", **found: Any) -> list[str]:
    """The lines, and how it stands at the end."""
    known: dict[str, Any] = {"Os": "linux", "Architecture": "amd64", "Size": 3 << 20, "Config": CONFIG}
    lines: list[str] = []
    last = judged(inspected(known | found), command, lines.append, user=user, architectures=["amd64"])
    return [*lines, last]


def test_an_image_that_brings_all_is_told_requirement_by_requirement() -> None:
    *lines, last = said()
    assert [line.split(": ")[:2] for line in lines] == [
        ["Good", part] for part in ("base image", "start", "port", "health check", "model", "user")
    ]
    assert "Linux for amd64, 3 MiB." in lines[0]
    assert "GET /ready is asked on port 8000 until it answers 200, for 90 s at most" in lines[3]
    assert last == "Its requirements are met."


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"Config": CONFIG | {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}}, "exposes 80, and 8000 is called"),
        ({"Config": CONFIG | {"ExposedPorts": None}}, "must listen on 8000"),
        ({"Architecture": "arm64"}, "made for arm64, and the host is amd64"),
        ({"Config": CONFIG | {"User": ""}, "user": "65532:65532"}, "the image's is root, so it runs as 65532"),
    ],
)
def test_what_may_go_wrong_is_pointed_at(found: dict[str, Any], words: str) -> None:
    *lines, last = said(**found)
    (looked,) = (line for line in lines if line.startswith("Look at this"))
    assert words in looked
    assert last == "Its requirements: 5 good, 1 to look at."


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"Os": "windows"}, "made for windows; it must be a Linux image"),
        ({"Config": CONFIG | {"Cmd": None}}, "says nothing to start"),
    ],
)
def test_what_can_t_run_is_refused_before_it_is_tried(found: dict[str, Any], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        said(**found)


def test_a_command_of_ones_own_and_a_model_in_the_image_are_fine() -> None:
    own = replace(IMAGE, command=("serve", "--key", "not-to-be-told"))
    lines = said(replace(COMMAND, image=own, model=""), Config=CONFIG | {"Cmd": None})
    assert "Good: model: the image brings it." in lines
    assert "not-to-be-told" not in " ".join(lines)


def test_one_that_only_some_machines_of_a_region_can_run_is_pointed_at() -> None:
    lines: list[str] = []
    found = Contents(
        "linux", ("amd64",), 5 << 20, user="app", ports=(8000,), command=True, health=True, packed=True
    )
    judged(found, COMMAND, lines.append, user="app", architectures=["amd64", "arm64"])
    assert "on the region's machines with arm64 it doesn't run. 5 MiB to pull." in lines[0]
    assert "Its own HEALTHCHECK is not used." in lines[3]


@pytest.mark.parametrize(
    ("user", "allow_root", "runs"),
    [("app", False, "app"), ("", False, "65532:65532"), ("0:0", False, "65532:65532"), ("root", True, "root")],
)
def test_root_is_who_it_runs_as_only_where_the_region_allows_it(user: str, allow_root: bool, runs: str) -> None:
    assert runs_as(Contents("linux", (), 0, user=user), allow_root=allow_root) == runs


@pytest.mark.parametrize(
    "config", [None, [], {"ExposedPorts": [80], "Env": {"A": 1}, "Healthcheck": "x", "User": 7}]
)
def test_what_an_image_says_wrongly_breaks_nothing(config: object) -> None:
    found = inspected({"Os": "lin\0ux", "Architecture": None, "Size": None, "Config": config})
    assert (found.system, found.ports, found.variables, found.health) == ("lin�ux", (), (), False)
