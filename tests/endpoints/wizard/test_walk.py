"""The way through: from nothing to an endpoint, once."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Project
from endpoints.models import Draft, Endpoint
from endpoints.wizard.steps import STEPS
from tests import make
from tests.endpoints.wizard.way import Way

pytestmark = pytest.mark.django_db


def test_the_proposed_answers_deploy_in_a_few_clicks(project: Project, client: Client) -> None:
    client.force_login(make.user("alice"))
    started = client.get(f"/projects/{project.slug}/endpoints/new/")
    way = Way(client, Draft.objects.get())
    assert started.headers["Location"] == way.url("basics")
    assert way.passes("basics", go="summary") == way.url("summary")
    page = way.see("summary")
    assert "₹3.20/h" in page
    assert "aria-disabled" not in page.partition('value="deploy"')[2][:80]
    made = way.post("summary", go="deploy", cost="yes")
    endpoint = Endpoint.objects.get()
    assert made.headers["Location"] == f"/projects/{project.slug}/endpoints/{endpoint.name}/"
    spec = endpoint.revisions.get().wish
    assert (spec.source.model, spec.source.version, spec.instance_type) == ("tiny", 1, "c6i.large")


@pytest.mark.parametrize("step", [step.slug for step in STEPS])
def test_each_step_shows_without_errors_before_it_is_answered(way: Way, step: str) -> None:
    way.to(step)
    page = way.see(step)
    assert "This can't go on yet" not in page
    assert 'aria-current="step"' in page


def test_a_step_ahead_opens_only_when_the_way_there_is_done(way: Way) -> None:
    answer = way.client.get(way.url("scaling"))
    assert answer.headers["Location"] == way.url("basics")


def test_the_cost_must_be_confirmed(way: Way) -> None:
    way.to("summary")
    assert "tick the box" in way.refused("summary", go="deploy")
    assert not Endpoint.objects.exists()


def test_deploying_twice_makes_one_endpoint(way: Way) -> None:
    way.to("summary")
    first = way.passes("summary", go="deploy", cost="yes")
    assert way.passes("summary", go="deploy", cost="yes") == first
    assert way.client.get(way.url("llm")).headers["Location"] == first
    assert Endpoint.objects.count() == 1


def test_a_name_taken_meanwhile_leads_back_to_it_and_makes_nothing(way: Way) -> None:
    way.to("summary", name="wanted")
    make.endpoint(way.draft.project, name="wanted")
    assert way.passes("summary", go="deploy", cost="yes") == way.url("basics")
    assert "The name “wanted” is taken" in way.see("basics")
    assert Endpoint.objects.count() == 1
    assert way.fresh().endpoint is None


def test_the_first_step_says_what_runs_already_and_fetches_what_it_costs(way: Way, project: Project) -> None:
    cost = reverse("billing:project_cost", args=[project.slug])
    assert cost not in way.see("basics")
    made = make.endpoint(project, ready=1)
    page = way.see("basics")
    assert made.name in page
    assert f'hx-get="{cost}"' in page
