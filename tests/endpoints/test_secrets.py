"""Secrets: written, used, never shown again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from accounts.models import Project, User
from accounts.roles import Role
from endpoints.models import Endpoint, Event, Secret
from endpoints.spec import EnvironmentSpec, SourceSpec
from tests import make

pytestmark = pytest.mark.django_db
PAGE = "/projects/alpha/secrets/"
VALUE = "hf_verysecretvalue"


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def project() -> Project:
    return make.project()


def store(project: Project, name: str = "hub-token") -> Secret:
    return Secret.store(project, name, VALUE, by=make.user("alice"))


def test_a_stored_value_is_on_no_page_and_not_in_the_database(project: Project) -> None:
    client = as_(make.user("alice"))
    client.post(PAGE, {"name": "hub-token", "description": "for gated models", "value": VALUE})
    secret = Secret.objects.get()
    assert secret.reveal() == VALUE
    assert VALUE.encode() not in bytes(secret.ciphertext)
    page = client.get(PAGE).content.decode()
    assert "hub-token" in page
    assert "for gated models" in page
    assert VALUE not in page
    assert VALUE not in " ".join(Event.objects.values_list("message", flat=True))


@pytest.mark.parametrize(("name", "field"), [("Hub Token", "name"), ("hub-token", "name"), ("", "name")])
def test_an_error_does_not_send_the_value_back(project: Project, name: str, field: str) -> None:
    store(project)
    answer = as_(make.user("alice")).post(PAGE, {"name": name, "value": "typed-just-now"})
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in answer.content.decode()
    assert "typed-just-now" not in answer.content.decode()
    assert Secret.objects.get().reveal() == VALUE


def test_a_value_is_replaced_and_spaces_in_it_are_kept(project: Project) -> None:
    secret = store(project)
    as_(make.user("alice")).post(f"{PAGE}hub-token/replace/", {"value": " new value "})
    secret.refresh_from_db()
    assert secret.reveal() == " new value "


def test_an_empty_replacement_keeps_the_old_value(project: Project) -> None:
    secret = store(project)
    answer = as_(make.user("alice")).post(f"{PAGE}hub-token/replace/", {"value": ""}, follow=True)
    assert "keeps its value" in answer.content.decode()
    secret.refresh_from_db()
    assert secret.reveal() == VALUE


def launch(project: Project, **changes: Any) -> Endpoint:
    make.region()
    make.instance_type()
    return Endpoint.launch(project, replace(make.spec("demo"), **changes), by=make.user("alice"))


@pytest.mark.parametrize(
    "changes",
    [
        {"source": SourceSpec(kind="huggingface", model_id="a/b", token_secret="hub-token")},
        {"environment": EnvironmentSpec(secrets={"HF_TOKEN": "hub-token"})},
    ],
)
def test_a_secret_in_use_is_not_deleted_and_the_answer_says_by_what(
    project: Project, changes: dict[str, Any]
) -> None:
    store(project)
    endpoint = launch(project, **changes)
    client = as_(make.user("alice"))
    answer = client.post(f"{PAGE}hub-token/delete/", follow=True)
    assert "is used by demo r1" in answer.content.decode()
    assert Secret.objects.exists()
    Endpoint.objects.filter(pk=endpoint.pk).update(deleted_at=endpoint.created_at)
    client.post(f"{PAGE}hub-token/delete/")
    assert not Secret.objects.exists()


def test_viewers_see_names_and_change_nothing(project: Project) -> None:
    store(project)
    viewer = as_(make.member(project, "bob", Role.VIEWER))
    assert "hub-token" in viewer.get(PAGE).content.decode()
    assert viewer.post(PAGE, {"name": "other", "value": "x"}).status_code == 403
    assert viewer.post(f"{PAGE}hub-token/replace/", {"value": "x"}).status_code == 403
    assert viewer.post(f"{PAGE}hub-token/delete/").status_code == 403


def test_the_same_name_in_another_project_is_another_secret(project: Project) -> None:
    store(project)
    store(make.project("Beta", make.user("charlie")))
    as_(make.user("charlie")).post("/projects/beta/secrets/hub-token/replace/", {"value": "theirs"})
    assert Secret.objects.get(project=project).reveal() == VALUE


def test_the_page_costs_the_same_for_many(project: Project, django_assert_max_num_queries: Any) -> None:
    for number in range(30):
        store(project, f"secret-{number}")
    client = as_(make.user("alice"))
    client.get(PAGE)
    with django_assert_max_num_queries(8):
        assert client.get(PAGE).status_code == 200
