"""The registry's pages, and the tokens of the Try it box."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from django.test import Client

from accounts.models import ApiKey, Project, User
from accounts.roles import Role
from endpoints.models import Draft, ModelVersion, RegisteredModel
from tests import make

pytestmark = pytest.mark.django_db
DIGEST = "ab" * 32


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def model(project: Project | None, name: str = "tiny", versions: int = 2) -> RegisteredModel:
    made = RegisteredModel.objects.create(project=project, name=name, title="Tiny one", license="MIT")
    for number in range(1, versions + 1):
        ModelVersion.objects.create(
            model=made,
            number=number,
            path="models/tiny.gguf",
            files=[{"path": f"tiny-{number}.gguf", "size": 2048, "sha256": DIGEST}],
            size_bytes=2048,
            facts={"architecture": "llama", "quantization": "Q4_1", "context_length": 8192},
        )
    return made


def test_the_list_shows_own_and_shared_models_and_no_others() -> None:
    project = make.project()
    model(None, "shared")
    model(project, "own")
    model(make.project("Beta", make.user("charlie")), "theirs")
    page = as_(make.user("alice")).get("/projects/alpha/models/").content.decode()
    assert "shared" in page
    assert "own" in page
    assert "theirs" not in page


def test_an_empty_registry_says_what_it_is_for() -> None:
    make.project()
    assert "No models yet" in as_(make.user("alice")).get("/projects/alpha/models/").content.decode()


def test_a_version_shows_its_files_with_digests_and_its_header() -> None:
    model(make.project())
    client = as_(make.user("alice"))
    assert "/projects/alpha/models/tiny/versions/2/" in client.get("/projects/alpha/models/tiny/").content.decode()
    newest = client.get("/projects/alpha/models/tiny/versions/2/").content.decode()
    assert "tiny-2.gguf" in newest
    assert DIGEST in newest
    assert "8,192 tokens" in newest
    assert "tiny-1.gguf" in client.get("/projects/alpha/models/tiny/versions/1/").content.decode()
    assert client.get("/projects/alpha/models/tiny/versions/9/").status_code == 404


def test_deploying_from_here_begins_a_draft_with_the_model_chosen() -> None:
    model(make.project())
    answer = as_(make.user("alice")).post("/projects/alpha/models/tiny/deploy/", {"version": "1"})
    draft = Draft.objects.get()
    assert answer["Location"] == f"/projects/alpha/endpoints/new/{draft.pk}/basics/"
    assert draft.answers["source"] == {"kind": "registry", "model": "tiny", "version": 1}
    assert draft.answers["method"] == {"method": "prebuilt", "framework": "llama.cpp"}


def test_a_viewer_sees_the_model_and_deploys_nothing() -> None:
    project = make.project()
    model(project)
    viewer = as_(make.member(project, "bob", Role.VIEWER))
    assert "Deploy v2" not in viewer.get("/projects/alpha/models/tiny/").content.decode()
    assert viewer.post("/projects/alpha/models/tiny/deploy/").status_code == 403


def test_the_list_costs_the_same_for_many(django_assert_max_num_queries: Any) -> None:
    project = make.project()
    for number in range(40):
        model(project, f"m{number}")
    client = as_(make.user("alice"))
    client.get("/projects/alpha/models/")
    with django_assert_max_num_queries(8):
        client.get("/projects/alpha/models/")


# ── tokens of the Try it box ─────────────────────────────────────────────────────────────────────
def test_trying_an_endpoint_gives_a_token_for_it_and_no_key() -> None:
    project = make.project()
    endpoint = make.endpoint(project, name="demo")
    alice = make.user("alice")
    answer = as_(alice).post("/projects/alpha/endpoints/demo/try-token/")
    said = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    assert (said["sub"], said["project"], said["endpoints"]) == (f"person:{alice.pk}", project.pk, [endpoint.pk])
    assert said["exp"] - said["iat"] == answer.json()["expires_in"] == 900
    assert "no-store" in answer["Cache-Control"]
    assert not ApiKey.objects.exists()
