"""What is said of an image of a user's own before it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from endpoints.runtimes.base import Command, Image, Rejected
from endpoints.runtimes.docker.requirements import report_of, summary

IMAGE = Image("team/own:1", port=8000, health_path="/ready")
COMMAND = Command(engine="custom", model="/data/m", alias="demo", image=IMAGE, startup_seconds=90)
CONFIG = {"Cmd": ["/serve"], "ExposedPorts": {"8000/tcp": {}}, "User": "app"}


def said(image: Image = IMAGE, command: Command = COMMAND, user: str = "app", **found: Any) -> list[str]:
    known: dict[str, Any] = {"Os": "linux", "Architecture": "amd64", "Size": 3 << 20, "Config": CONFIG}
    return report_of(known | found, command, image, user=user, arch="amd64")


def test_an_image_that_brings_all_is_told_requirement_by_requirement() -> None:
    lines = said()
    assert [line.split(": ")[:2] for line in lines] == [
        ["Good", part] for part in ("base image", "start", "port", "health check", "model", "user")
    ]
    assert "GET /ready is asked on port 8000 until it answers 200, for 90 s at most" in lines[3]
    assert summary(lines) == "Its requirements are met."


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
    lines = said(**found)
    (looked,) = (line for line in lines if line.startswith("Look at this"))
    assert words in looked
    assert summary(lines) == "Its requirements: 5 good, 1 to look at."


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
    lines = said(own, replace(COMMAND, model=""), Config=CONFIG | {"Cmd": None})
    assert "Good: model: the image brings it." in lines
    assert "not-to-be-told" not in " ".join(lines)
