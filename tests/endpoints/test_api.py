"""The REST API: the same verbs and refusals as the pages, one shape of problem, and repeats that do nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import ApiKey, Project
from endpoints.models import Endpoint, Event, ModelVersion, RegisteredModel
from endpoints.spec import GIB, Method, SourceKind, Spec
from endpoints.status import Desired
from monitoring.models import LogLine
from tests import make
from tests.model_files import smollm2

pytestmark = pytest.mark.django_db
ROOT = "/api/v1/endpoints"


class Caller:
    """A program with a key."""

    def __init__(self, project: Project) -> None:
        self.key, secret = ApiKey.issue(
            project, name="ci", scopes=["manage"], by=project.memberships.earliest("pk").user
        )
        self.headers = {"Authorization": f"Bearer {secret}"}

    def get(self, path: str = "") -> Any:
        return Client().get(ROOT + path, headers=self.headers)

    def post(self, path: str = "", body: Any = None, **headers: str) -> Any:
        text = body if isinstance(body, str) else json.dumps(body if body is not None else {})
        return Client().post(ROOT + path, text, content_type="application/json", headers=self.headers | headers)

    def delete(self, path: str) -> Any:
        return Client().delete(ROOT + path, headers=self.headers)


@pytest.fixture
def caller() -> Caller:
    return Caller(make.project())


@pytest.fixture
def catalogue(settings: Any, tmp_path: Any) -> None:
    """A region, a machine, and the real small model in the registry."""
    settings.DATA_DIR = tmp_path
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "tiny.gguf"
    file.symlink_to(smollm2())
    size = file.stat().st_size
    make.region()
    make.instance_type(memory_bytes=4 * GIB)
    model = RegisteredModel.objects.create(name="smollm2-135m-instruct")
    files = [{"path": "tiny.gguf", "size": size, "sha256": None}]
    ModelVersion.objects.create(model=model, number=1, path="models/tiny.gguf", files=files, size_bytes=size)


def wish(name: str = "demo", **changes: Any) -> dict[str, Any]:
    source = {"kind": "registry", "model": "smollm2-135m-instruct", "version": 1}
    return {"name": name, "region": "local", "instance_type": "c6i.large", "source": source} | changes


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# ── making one ───────────────────────────────────────────────────────────────────────────────────
def test_a_program_makes_an_endpoint_and_the_event_names_its_key(caller: Caller, catalogue: None) -> None:
    answer = caller.post("", wish())
    assert answer.status_code == 201, answer.json()
    assert answer["Location"] == f"{ROOT}/demo"
    made = answer.json()
    assert made["status"] == "deploying"
    assert made["deployment"]["phases"][0]["kind"] == "validation"
    assert made["address"].endswith("/e/demo/v1")
    assert Event.objects.filter(endpoint__name="demo", actor_key=caller.key).exists()


def test_the_same_key_and_body_make_one_endpoint(caller: Caller, catalogue: None) -> None:
    first = caller.post("", wish(), **{"Idempotency-Key": "a"})
    again = caller.post("", wish(), **{"Idempotency-Key": "a"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["created_at"] == again.json()["created_at"]
    assert Endpoint.objects.count() == 1


def test_the_same_key_with_another_body_is_refused(caller: Caller, catalogue: None) -> None:
    caller.post("", wish(), **{"Idempotency-Key": "a"})
    assert code(caller.post("", wish("other"), **{"Idempotency-Key": "a"})) == (409, "idempotency_key_reused")
    assert Endpoint.objects.count() == 1


def test_a_failed_call_leaves_its_key_free(caller: Caller, catalogue: None) -> None:
    assert caller.post("", wish(name="NO"), **{"Idempotency-Key": "a"}).status_code == 422
    assert caller.post("", wish(), **{"Idempotency-Key": "a"}).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_two_calls_with_one_key_at_once_make_one_endpoint(catalogue: None) -> None:
    caller = Caller(make.project())

    def call(_: int) -> int:
        try:
            return int(caller.post("", wish(), **{"Idempotency-Key": "a"}).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as both:
        assert sorted(both.map(call, range(2))) == [200, 201]
    assert Endpoint.objects.count() == 1


def test_a_key_of_another_project_does_not_replay_ours(caller: Caller, catalogue: None) -> None:
    caller.post("", wish(), **{"Idempotency-Key": "a"})
    other = Caller(make.project("Beta", make.user("charlie")))
    assert other.post("", wish("theirs"), **{"Idempotency-Key": "a"}).status_code == 201


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"nmae": "x"}, "nmae"),
        ({"llm": {"top_q": 1}}, "llm.top_q"),
        ({"llm": {"top_k": 101}}, "llm.top_k"),
        ({"llm": {"temperature": 0}}, "llm.temperature"),
        ({"scaling": {"min_instances": 11}}, "scaling.min_instances"),
        ({"name": "Bad Name"}, "name"),
        ({"region": "mars"}, "region"),
        ({"instance_type": "huge"}, "instance_type"),
        ({"source": {"kind": "registry", "model": "nothing", "version": 1}}, "source.model"),
        ({"llm": []}, "llm"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_made(
    caller: Caller, catalogue: None, change: dict[str, Any], field: str
) -> None:
    answer = caller.post("", wish() | change)
    assert code(answer) == (422, "invalid")
    assert field in answer.json()["error"]["fields"], answer.json()
    assert not Endpoint.objects.exists()


@pytest.mark.parametrize("body", ["{", "[1,", '{"name": NaN}', "\x00", "[" * 100_000])
def test_what_is_no_json_gets_a_clear_answer(caller: Caller, body: str) -> None:
    assert code(caller.post("", body)) == (400, "invalid_json")


@pytest.mark.parametrize("body", ["[]", "null", '"text"', "3"])
def test_json_that_is_no_object_gets_a_clear_answer(caller: Caller, body: str) -> None:
    assert code(caller.post("", body)) == (422, "invalid")


@pytest.mark.parametrize("path", ["", "/demo/scale"])
def test_ten_megabytes_are_refused(caller: Caller, path: str) -> None:
    make.endpoint(caller.key.project, name="demo", ready=1)
    assert code(caller.post(path, json.dumps({"name": "x" * 10_000_000}))) == (413, "too_large")


def test_a_taken_name_is_a_conflict_or_a_wrong_field(caller: Caller, catalogue: None) -> None:
    make.endpoint(caller.key.project, name="demo")
    answer = caller.post("", wish())
    assert answer.status_code in (409, 422)
    assert "name" in answer.json()["error"]["fields"]
    assert Endpoint.objects.count() == 1


# ── the verbs ────────────────────────────────────────────────────────────────────────────────────
def test_scaling_stopping_starting_restarting_deleting(caller: Caller) -> None:
    endpoint = make.endpoint(caller.key.project, name="demo", ready=1)
    assert caller.post("/demo/scale", {"instances": 3}).json()["instances"]["wanted"] == 3
    assert caller.post("/demo/stop").json()["desired"] == "stopped"
    assert caller.post("/demo/start").json()["desired"] == "running"
    assert code(caller.post("/demo/restart")) == (409, "deployment_running")
    deleted = caller.delete("/demo")
    assert (deleted.status_code, deleted.json()["desired"]) == (202, "deleted")
    endpoint.refresh_from_db()
    assert endpoint.desired == Desired.DELETED
    assert code(caller.post("/demo/start")) == (409, "deleted")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"instances": 11}, "instances"),
        ({"instances": "3"}, "instances"),
        ({"instances": True}, "instances"),
        ({"instances": -1}, "instances"),
        ({}, "instances"),
        ({"instances": 2, "force": True}, "force"),
    ],
)
def test_scaling_out_of_range_says_at_the_field_why(caller: Caller, body: Any, told: str) -> None:
    endpoint = make.endpoint(caller.key.project, name="demo", ready=1)
    answer = caller.post("/demo/scale", body)
    assert answer.status_code == 422
    assert told in answer.json()["error"]["fields"]
    endpoint.refresh_from_db()
    assert endpoint.wanted == 1


def test_scaling_a_stopped_one_is_a_conflict(caller: Caller) -> None:
    make.endpoint(caller.key.project, name="demo", ready=1, desired="stopped")
    assert code(caller.post("/demo/scale", {"instances": 2})) == (409, "stopped")


# ── reading ──────────────────────────────────────────────────────────────────────────────────────
def test_the_list_is_the_projects_own_filtered_and_paged(caller: Caller) -> None:
    for name in ("a", "b", "c"):
        make.endpoint(caller.key.project, name=name, ready=1 if name != "c" else 0)
    make.endpoint(make.project("Beta", make.user("charlie")), name="theirs")
    names = [one["name"] for one in caller.get("?limit=2").json()["items"]]
    assert names == ["a", "b"]
    assert [one["name"] for one in caller.get("?limit=2&page=2").json()["items"]] == ["c"]
    assert [one["name"] for one in caller.get("?status=active").json()["items"]] == ["a", "b"]
    assert caller.get("?page=9").json()["items"] == []
    assert code(caller.get("?status=fine")) == (422, "invalid")
    assert code(caller.get("?stauts=failed")) == (422, "unknown_parameter")


def test_the_list_costs_the_same_for_many(caller: Caller, django_assert_max_num_queries: Any) -> None:
    for _ in range(20):
        make.endpoint(caller.key.project, ready=2)
    with django_assert_max_num_queries(8):
        items = caller.get().json()["items"]
    assert {one["instances"]["ready"] for one in items} == {2}


def test_events_are_read_page_by_page_to_the_end(caller: Caller) -> None:
    endpoint = make.endpoint(caller.key.project, name="demo")
    for number in range(6):
        endpoint.record("test.event", message=str(number))
    seen, cursor = [], ""
    while True:
        page = caller.get(f"/demo/events?limit=3{cursor}").json()
        seen += [event["message"] for event in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["5", "4", "3", "2", "1", "0", "Deployment of revision 1 began."]


def test_logs_go_on_from_a_sequence_number_and_are_searched(caller: Caller) -> None:
    endpoint = make.endpoint(caller.key.project, name="demo", ready=1)
    instance = endpoint.instances.get()
    for number in range(1, 6):
        LogLine.objects.create(
            instance=instance, endpoint=endpoint, sequence=number, offset=number, at=timezone.now(),
            stream="stderr", text=f"line {number}", gap=number == 4,
        )  # fmt: skip
    page = caller.get("/demo/logs?after=2&limit=2").json()
    assert [(line["seq"], line["gap"]) for line in page["lines"]] == [(3, False), (4, True)]
    assert page["next_after"] == 4
    assert [line["text"] for line in caller.get("/demo/logs?q=LINE 5").json()["lines"]] == ["line 5"]
    assert code(caller.get("/demo/logs?instance=other")) == (404, "not_found")


def test_an_endpoint_without_instances_has_no_lines_and_says_so_without_error(caller: Caller) -> None:
    make.endpoint(caller.key.project, name="demo")
    assert caller.get("/demo/logs").json() == {"instance": "", "instances": [], "lines": [], "next_after": 0}


# ── the frame ────────────────────────────────────────────────────────────────────────────────────
def test_every_problem_has_one_shape(caller: Caller) -> None:
    client = Client()
    answers = [
        client.get(ROOT),
        client.get(ROOT, headers={"Authorization": "Bearer nonsense"}),
        client.get(ROOT, headers={"Authorization": "Basic YTpi"}),
        client.put(ROOT, headers=caller.headers),
        caller.get("/nothing"),
        caller.get("?limit=none"),
        client.get("/api/v1/elsewhere"),
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 405, 404, 422, 404]
    for answer in answers:
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == {"code", "message", "fields"}
        assert answer.json()["error"]["message"]
    assert answers[0]["WWW-Authenticate"] == "Bearer"


def test_a_call_that_breaks_is_told_as_json_without_its_cause(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a detail")

    monkeypatch.setattr("endpoints.api._answer", broken)
    make.endpoint(caller.key.project, name="demo")
    answer = caller.get("/demo")
    assert code(answer) == (500, "broken")
    assert "a detail" not in answer.content.decode()


def test_using_a_key_is_noted(caller: Caller) -> None:
    before = timezone.now() - timedelta(seconds=1)
    caller.get()
    caller.key.refresh_from_db()
    assert caller.key.last_used_at is not None
    assert caller.key.last_used_at > before


def test_the_document_names_every_field_of_a_wish_with_its_range() -> None:
    schemas = Client().get("/api/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Spec"]["required"]) == {"name", "region", "instance_type", "source"}
    top_k = schemas["LlmSpec"]["properties"]["top_k"]
    assert (top_k["minimum"], top_k["maximum"], top_k["default"]) == (1, 100, 50)


def test_the_document_has_a_body_to_begin_with_for_every_kind_of_source_and_method() -> None:
    create = Client().get("/api/openapi.json").json()["paths"]["/api/v1/endpoints"]["post"]
    bodies = [one["value"] for one in create["requestBody"]["content"]["application/json"]["examples"].values()]
    wishes = [Spec.from_dict(body) for body in bodies]  # TypeError for a field that there isn't
    assert {wish.source.kind for wish in wishes} == set(SourceKind.values)
    assert {wish.method for wish in wishes} == set(Method.values)


def test_an_endpoint_says_what_it_is_made_of(caller: Caller) -> None:
    make.endpoint(ready=1, name="demo")
    made = caller.get("/demo").json()["made_of"]
    assert made["revision"] == 1
    assert (made["framework"], made["source"]) == ("llama.cpp", "smollm2-135m-instruct v1")


def test_the_documentation_needs_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = Client().get("/api/docs")
    text = page.content.decode()
    assert page.status_code == 200
    assert "https://" not in text
    assert 'src="/static/ninja/swagger-ui-bundle.js"' in text
    scripts = [part.partition(">")[0] for part in text.split("<script")[1:]]
    assert all("src=" in script or "application/json" in script for script in scripts)
