"""A scaling policy changes at once, for people and programs, and no instance is replaced for it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from accounts.models import ApiKey
from accounts.refused import Refused
from endpoints.models import Endpoint
from endpoints.models.deployment import DeploymentState
from endpoints.spec import LlmSpec
from tests import make

pytestmark = pytest.mark.django_db


def patch(endpoint: Endpoint, body: Any, *scopes: str) -> Any:
    _, secret = ApiKey.issue(endpoint.project, name="ci", scopes=list(scopes) or ["manage"], by=make.user("alice"))
    return Client().patch(
        f"/api/v1/endpoints/{endpoint.name}/scaling",
        json.dumps(body),
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )


def test_a_program_changes_the_policy_without_a_deployment() -> None:
    endpoint = make.endpoint(ready=2)
    answer = patch(endpoint, {"min_instances": 2, "max_instances": 20, "target_concurrency": 15})
    assert answer.status_code == 200
    assert answer.json()["instances"] | {"live": 2} == {"wanted": 2, "live": 2, "ready": 2, "min": 2, "max": 20}
    assert answer.json()["scaling"] == {
        "target_concurrency": 15, "scale_up_threshold": 80, "scale_down_delay": 300, "warm_spare": 0,
    }  # fmt: skip
    assert not endpoint.deployments.filter(state=DeploymentState.RUNNING).exists()
    event = endpoint.events.first()
    assert event
    assert (event.kind, event.who) == ("endpoint.scaling_updated", "key ci")
    assert event.message == (
        "Scaling policy: min instances 1 → 2, max instances 10 → 20, target concurrency 10 → 15."
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"min_instances": 11}, "min_instances"),
        ({"max_instances": 0}, "max_instances"),
        ({"min_instances": 5, "max_instances": 4}, "max_instances"),
        ({"target_concurrency": 1001}, "target_concurrency"),
        ({"scale_up_threshold": 49}, "scale_up_threshold"),
        ({"scale_down_delay": 10**12}, "scale_down_delay"),
        ({"scale_down_delay": "60"}, "scale_down_delay"),
        ({"replicas": 3}, "replicas"),
        ({"warm_spare": 11}, "warm_spare"),
        ({"warm_spare": 3, "max_instances": 3}, "warm_spare"),
    ],
)
def test_what_is_out_of_range_is_refused_at_its_field_and_changes_nothing(
    body: dict[str, Any], field: str
) -> None:
    endpoint = make.endpoint(ready=1)
    answer = patch(endpoint, body)
    assert answer.status_code == 422
    assert list(answer.json()["error"]["fields"]) == [field]
    generation = endpoint.generation
    endpoint.refresh_from_db()
    assert endpoint.generation == generation


def test_a_key_for_inference_may_not() -> None:
    endpoint = make.endpoint(ready=1)
    assert patch(endpoint, {"max_instances": 3}, "inference").status_code == 403


def test_another_projects_endpoint_is_not_there() -> None:
    endpoint = make.endpoint(make.project("Beta", owner=make.user("charlie")))
    _, secret = ApiKey.issue(make.project(), name="ci", scopes=["manage"], by=make.user("alice"))
    answer = Client().patch(
        f"/api/v1/endpoints/{endpoint.name}/scaling", "{}", content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )  # fmt: skip
    assert answer.status_code == 404


def test_what_is_wanted_moves_into_the_new_limits() -> None:
    endpoint = make.endpoint(ready=5)
    assert endpoint.update_scaling(by=None, max_instances=3)
    assert (endpoint.wanted, endpoint.max_instances) == (3, 3)
    assert endpoint.update_scaling(by=None, min_instances=4, max_instances=8)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.min_instances) == (4, 4)
    event = endpoint.events.first()
    assert event
    assert event.message.endswith("wanted 3 → 4.")


def test_warm_spares_are_wanted_at_once_where_fewer_are() -> None:
    endpoint = make.endpoint(ready=1)
    assert endpoint.update_scaling(by=None, warm_spare=3)
    assert endpoint.wanted == 3
    with pytest.raises(Refused, match="Warm spare must be below max instances, 3") as refused:
        endpoint.update_scaling(by=None, max_instances=3)
    assert refused.value.field == "max_instances"


def test_a_policy_that_was_updated_survives_a_deployment_and_goes_into_its_revision() -> None:
    endpoint = make.endpoint(ready=1)
    endpoint.update_scaling(by=None, max_instances=20, scale_down_delay=600)
    first = endpoint.revisions.latest("number").wish
    deployment = endpoint.deploy(replace(first, llm=LlmSpec(top_k=7)), by=None)
    endpoint.refresh_from_db()
    assert (endpoint.max_instances, endpoint.scale_down_delay) == (20, 600)
    assert deployment.revision.wish.scaling == replace(first.scaling, max_instances=20, scale_down_delay=600)
    endpoint.cancel(by=None)
    meant = replace(first, scaling=replace(first.scaling, max_instances=5))
    endpoint.deploy(meant, by=None, with_scaling=True)
    endpoint.refresh_from_db()
    assert (endpoint.max_instances, endpoint.scale_down_delay) == (5, 300)


def test_the_same_policy_again_writes_nothing() -> None:
    endpoint = make.endpoint(ready=1)
    events = endpoint.events.count()
    assert endpoint.update_scaling(by=None, max_instances=10) is False
    assert endpoint.events.count() == events


def test_a_spent_crash_budget_is_not_opened_by_another_policy() -> None:
    endpoint = make.endpoint(ready=1)
    Endpoint.objects.filter(pk=endpoint.pk).update(halted_at=endpoint.created_at)
    wished = endpoint.wished_at
    assert endpoint.update_scaling(by=None, max_instances=20)
    endpoint.refresh_from_db()
    assert endpoint.halted_at is not None
    assert endpoint.wished_at == wished


def test_the_policy_of_a_deleted_endpoint_stays() -> None:
    endpoint = make.endpoint(ready=1)
    endpoint.delete_endpoint(by=None)
    with pytest.raises(Refused, match="being deleted"):
        endpoint.update_scaling(by=None, max_instances=20)
