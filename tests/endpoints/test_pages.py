"""The list of endpoints and the page of one, as people of every role see them."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.roles import Role
from endpoints.models import Endpoint, Revision
from endpoints.spec import ContainerSpec, SourceSpec
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice(client: Client) -> Client:
    client.force_login(make.user("alice"))
    return client


def test_a_new_project_is_taught_its_next_step(alice: Client) -> None:
    project = make.project()
    page = alice.get(f"/projects/{project.slug}/endpoints/")
    assert page.status_code == 200
    assert b"No endpoints yet" in page.content
    assert f"/projects/{project.slug}/endpoints/new/".encode() in page.content


def test_the_list_costs_the_same_number_of_queries_however_long(
    alice: Client, django_assert_max_num_queries: Any
) -> None:
    project = make.project()
    for _ in range(3):
        make.endpoint(project, ready=2)
    url = f"/projects/{project.slug}/endpoints/"
    alice.get(url)
    with django_assert_max_num_queries(12) as few:
        alice.get(url)
    for _ in range(20):
        make.endpoint(project, ready=2)
    with django_assert_max_num_queries(len(few.captured_queries)):
        page = alice.get(url)
    assert page.content.count(b"row-link") == 23


def test_the_list_filters_by_name_and_status(alice: Client) -> None:
    project = make.project()
    make.endpoint(project, ready=1, name="chat")
    make.endpoint(project, name="other")
    url = f"/projects/{project.slug}/endpoints/"
    assert b">other<" not in alice.get(url, {"q": "chat"}).content
    assert b">chat<" not in alice.get(url, {"status": "deploying"}).content
    assert b"Nothing matches" in alice.get(url, {"q": "nowhere"}).content


@pytest.mark.parametrize("tab", ["overview", "metrics", "logs", "events", "revisions", "nonsense"])
def test_every_tab_of_the_page_answers(alice: Client, tab: str) -> None:
    endpoint = make.endpoint(ready=1, name="demo")
    page = alice.get(f"/projects/{endpoint.project.slug}/endpoints/demo/", {"tab": tab})
    assert page.status_code == 200
    assert b"Active" in page.content


@pytest.mark.parametrize("part", ["status", "problems", "actions", "timeline", "instances", "events"])
def test_each_fragment_comes_alone(alice: Client, part: str) -> None:
    endpoint = make.endpoint(ready=1, name="demo")
    fragment = alice.get(f"/projects/{endpoint.project.slug}/endpoints/demo/", {"part": part})
    assert fragment.status_code == 200
    assert b"<html" not in fragment.content


def test_snippets_carry_the_real_address_and_no_key(alice: Client, settings: Any) -> None:
    settings.GATEWAY_URL = "http://gateway.example:8080"
    endpoint = make.endpoint(ready=1, name="demo")
    page = alice.get(f"/projects/{endpoint.project.slug}/endpoints/demo/").content.decode()
    assert "curl http://gateway.example:8080/e/demo/v1/chat/completions" in page
    assert "$TIR_API_KEY" in page
    assert "http://demo.local.localhost:8080/v1" in page


OWN = ContainerSpec(image="registry.example.com/team/m:1", port=9000, health_path="/ready", command="serve")
GIT = SourceSpec(kind="git", url="https://git.example.com/m.git", path="three", revision="main")


def shown(alice: Client, resolved: dict[str, Any] | None = None, **wish: Any) -> str:
    """The page of an endpoint that is made of this."""
    endpoint = make.endpoint(ready=1, name="demo")
    changed = replace(endpoint.revisions.get().wish, **wish).to_dict()
    Revision.objects.update(spec=changed, resolved=resolved or {})
    return alice.get(f"/projects/{endpoint.project.slug}/endpoints/demo/").content.decode()


def test_a_custom_container_shows_its_image_and_no_chat(alice: Client) -> None:
    page = shown(alice, method="custom", container=OWN, source=SourceSpec(kind="none"))
    for seen in (
        "Custom Docker container",
        "registry.example.com/team/m:1",
        "port 9000",
        "/ready",
        "In the image",
    ):
        assert seen in page
    assert "chat/completions" not in page
    assert "/e/demo/ -H" in page


@pytest.mark.parametrize(
    ("methods", "call"), [(["predict"], "/e/demo/predict"), (["chat"], "/v1/chat/completions")]
)
def test_a_model_py_is_called_by_what_its_class_can(alice: Client, methods: list[str], call: str) -> None:
    layout = {"kind": "model_py", "engine": "pytorch", "notes": [], "methods": methods, "requirements": ""}
    resolved = {"commit": "c0ffee" * 6 + "beef", "file": "", "files": ["model.py"], "layout": layout}
    page = shown(alice, resolved, framework="pytorch", framework_version="2.x", source=GIT)
    for seen in ("PyTorch 2.x", "https://git.example.com/m.git/three", "c0ffeec0ffee", "Git repository", call):
        assert seen in page


def test_a_form_scales_and_offers_undo(alice: Client) -> None:
    endpoint = make.endpoint(ready=1, name="demo")
    url = f"/projects/{endpoint.project.slug}/endpoints/demo/"
    page = alice.post(f"{url}scale/", {"instances": "3"}, follow=True)
    assert Endpoint.objects.get().wanted == 3
    assert b"Undo" in page.content
    assert b'name="instances" value="1"' in page.content


@pytest.mark.parametrize("instances", ["11", "0", "-1", "many", ""])
def test_a_scale_out_of_range_changes_nothing_and_says_why(alice: Client, instances: str) -> None:
    endpoint = make.endpoint(ready=1, name="demo")
    url = f"/projects/{endpoint.project.slug}/endpoints/demo/"
    page = alice.post(f"{url}scale/", {"instances": instances}, follow=True)
    assert Endpoint.objects.get().wanted == 1
    assert b"Choose between 1 and 10" in page.content or b"whole number" in page.content


def test_one_that_sleeps_says_what_a_request_does_and_scales_up_by_hand(alice: Client) -> None:
    endpoint = make.endpoint(name="demo", status="idle", wanted=0, min_instances=0)
    endpoint.update_admission(by=None, wake_seconds=90)
    url = f"/projects/{endpoint.project.slug}/endpoints/demo/"
    page = alice.get(url).content.decode()
    assert "Scaled to zero" in page
    assert (
        "The next request wakes it. Requests are held until an instance answers, each for 1 m 30 s at most."
        in page
    )
    assert "It answers once the endpoint is active." not in page
    assert "a request wakes it" in alice.get(f"/projects/{endpoint.project.slug}/endpoints/").content.decode()
    assert b"Undo" in alice.post(f"{url}scale/", {"instances": "1"}, follow=True).content
    assert Endpoint.objects.get().wanted == 1
    Endpoint.objects.update(status="scaling")
    assert "The first instance is on its way." in alice.get(f"{url}?part=problems").content.decode()
    Endpoint.objects.update(wanted=0)  # the last one finishes what it carries
    assert "Waking up" not in alice.get(f"{url}?part=problems").content.decode()
    Endpoint.objects.update(wanted=2)
    make.instance(endpoint, state="ready")
    assert "Waking up" not in alice.get(f"{url}?part=problems").content.decode()


def test_a_region_that_is_away_is_said_where_something_waits_for_it(alice: Client) -> None:
    endpoint = make.endpoint(name="demo")
    problems = f"/projects/{endpoint.project.slug}/endpoints/demo/?part=problems"
    assert "be reached" not in alice.get(problems).content.decode()
    endpoint.region.unreached("Docker on gpu-1 can't be reached at unix:///x: no such file.", at=timezone.now())
    page = unescape(alice.get(problems).content.decode())
    assert f"The region “{endpoint.region.name}” can't be reached" in page
    assert "Docker on gpu-1 can't be reached at unix:///x: no such file. What runs there runs on" in page
    endpoint.region.measured({}, at=timezone.now())
    assert "be reached" not in alice.get(problems).content.decode()


def test_delete_wants_the_name_typed(alice: Client) -> None:
    endpoint = make.endpoint(ready=1, name="demo")
    url = f"/projects/{endpoint.project.slug}/endpoints/demo/delete/"
    alice.post(url, {"confirm": "dem"})
    assert Endpoint.objects.get().desired == "running"
    assert alice.post(url, {"confirm": "demo"}).status_code == 302
    assert Endpoint.objects.get().desired == "deleted"


def test_a_viewer_sees_no_buttons_and_is_refused(client: Client) -> None:
    endpoint = make.endpoint(ready=1, name="demo")
    client.force_login(make.member(endpoint.project, "vera", Role.VIEWER))
    url = f"/projects/{endpoint.project.slug}/endpoints/demo/"
    page = client.get(url)
    assert page.status_code == 200
    assert b'data-verb="' not in page.content
    assert client.post(f"{url}scale/", {"instances": "2"}).status_code == 403
    assert Endpoint.objects.get().wanted == 1


def test_charlie_of_another_project_finds_nothing(client: Client) -> None:
    endpoint = make.endpoint(ready=1, name="demo")
    charlie = make.user("charlie")
    make.project("Other", owner=charlie)
    client.force_login(charlie)
    url = f"/projects/{endpoint.project.slug}/endpoints/"
    assert client.get(url).status_code == 404
    assert client.get(f"{url}demo/").status_code == 404
    assert client.post(f"{url}demo/stop/").status_code == 404
