"""What people ask of an endpoint: each verb wins or loses as a whole, and leaves an event that says who."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.utils import timezone

from accounts.models import ApiKey
from endpoints.models import Deployment, Endpoint, Event, Revision
from endpoints.models.deployment import DeploymentState, PhaseKind
from endpoints.models.endpoint import Refused
from endpoints.spec import LlmSpec, ScalingSpec, Spec
from endpoints.status import Desired, Status
from tests import make

pytestmark = pytest.mark.django_db


def _newest(endpoint: Endpoint) -> Deployment:
    newest = endpoint.latest_deployment
    assert newest
    return newest


def test_a_launch_begins_the_six_phases() -> None:
    endpoint = make.endpoint(name="demo")
    assert [phase.kind for phase in _newest(endpoint).phases.all()] == PhaseKind.values
    assert endpoint.status == Status.DEPLOYING


def test_a_taken_name_is_refused_at_its_field_and_leaves_nothing() -> None:
    make.endpoint(name="demo")
    with pytest.raises(Refused) as refused:
        make.endpoint(name="demo")
    assert refused.value.field == "name"
    assert (Endpoint.objects.count(), Revision.objects.count(), Deployment.objects.count()) == (1, 1, 1)


def test_the_name_of_a_deleted_endpoint_is_free_again() -> None:
    first = make.endpoint(name="demo")
    Endpoint.objects.filter(pk=first.pk).update(deleted_at=first.created_at)
    assert make.endpoint(name="demo").pk != first.pk


def test_a_launch_with_no_instances_still_starts_one() -> None:
    spec = make.spec(scaling=ScalingSpec(min_instances=0))
    make.region()
    make.instance_type()
    endpoint = Endpoint.launch(make.project(), spec, by=None)
    assert endpoint.wanted == 1


@pytest.mark.parametrize("instances", [0, 11, 1000])
def test_a_scale_beyond_the_limits_is_refused_and_changes_nothing(instances: int) -> None:
    endpoint = make.endpoint(ready=2)
    generation = endpoint.generation
    with pytest.raises(Refused, match="between 1 and 10"):
        endpoint.scale(instances, by=None)
    endpoint.refresh_from_db()
    assert (endpoint.wanted, endpoint.generation) == (2, generation)


def test_a_scale_to_what_is_wanted_already_writes_no_event() -> None:
    endpoint = make.endpoint(ready=2)
    before = Event.objects.count()
    assert endpoint.scale(2, by=None) is False
    assert Event.objects.count() == before


def test_a_scale_says_who_asked_and_from_where_to_where() -> None:
    endpoint = make.endpoint(ready=2)
    endpoint.scale(3, by=make.user("bob"))
    event = endpoint.events.first()
    assert event
    assert (event.kind, event.who, event.before, event.after) == ("endpoint.scaled", "bob", "2", "3")


def test_a_programs_act_is_told_from_its_makers() -> None:
    endpoint = make.endpoint(ready=1)
    key, _ = ApiKey.issue(endpoint.project, name="ci", scopes=["manage"], by=make.user("alice"))
    endpoint.stop(by=key)
    event = endpoint.events.first()
    assert event
    assert event.who == "key ci"


def test_a_stale_copy_cannot_undo_what_another_tab_did() -> None:
    endpoint = make.endpoint(ready=1)
    stale = Endpoint.objects.get(pk=endpoint.pk)
    endpoint.stop(by=None)
    with pytest.raises(Refused, match="stopped"):
        stale.scale(3, by=None)


def test_stopping_cancels_the_deployment_under_way() -> None:
    endpoint = make.endpoint()
    assert endpoint.stop(by=None)
    assert _newest(endpoint).state == DeploymentState.CANCELLED
    assert endpoint.stop(by=None) is False


def test_starting_again_deploys_the_revision_that_served() -> None:
    endpoint = make.endpoint(ready=1)
    endpoint.stop(by=None)
    assert endpoint.start(by=None)
    assert _newest(endpoint).revision == endpoint.serving_revision
    assert endpoint.desired == Desired.RUNNING
    assert endpoint.start(by=None) is False


def test_one_deployment_at_a_time() -> None:
    endpoint = make.endpoint()
    with pytest.raises(Refused, match="under way"):
        endpoint.deploy(_changed(endpoint), by=None)
    with pytest.raises(Refused, match="under way"):
        endpoint.restart(by=None)


def test_a_new_revision_is_numbered_and_the_old_one_serves_on() -> None:
    endpoint = make.endpoint(ready=1)
    deployment = endpoint.deploy(_changed(endpoint), by=None)
    endpoint.refresh_from_db()
    assert deployment.revision.number == 2
    assert deployment.revision.wish.llm.top_k == 7
    assert endpoint.serving_revision
    assert endpoint.serving_revision.number == 1


def test_a_persons_wish_opens_the_crash_budget_again() -> None:
    endpoint = make.endpoint(ready=1, halted_at=timezone.now(), halted_reason="CrashLoop")
    endpoint.scale(1, by=None)
    endpoint.refresh_from_db()
    assert endpoint.halted_at is None


def test_nothing_is_asked_of_what_is_being_deleted() -> None:
    endpoint = make.endpoint(ready=1)
    assert endpoint.delete_endpoint(by=None)
    assert endpoint.delete_endpoint(by=None) is False
    for verb in (endpoint.stop, endpoint.start, endpoint.restart):
        with pytest.raises(Refused, match="deleted"):
            verb(by=None)


def test_a_cancelled_first_deployment_leaves_the_endpoint_stopped_not_failed() -> None:
    endpoint = make.endpoint()
    assert endpoint.cancel(by=None)
    assert endpoint.desired == Desired.STOPPED
    assert endpoint.start(by=None)


def test_cancelling_an_update_leaves_what_served_running() -> None:
    endpoint = make.endpoint(ready=1)
    endpoint.deploy(_changed(endpoint), by=None)
    assert endpoint.cancel(by=None)
    assert endpoint.desired == Desired.RUNNING


def test_cancelling_without_a_deployment_says_so() -> None:
    endpoint = make.endpoint(ready=1)
    assert endpoint.cancel(by=None) is False


def test_a_stored_spec_comes_back_the_same() -> None:
    spec = make.spec(llm=LlmSpec(top_k=7), scaling=ScalingSpec(max_instances=3))
    assert Spec.from_dict(spec.to_dict()) == spec
    with pytest.raises(TypeError):
        Spec.from_dict(spec.to_dict() | {"surprise": 1})


def _changed(endpoint: Endpoint) -> Spec:
    return replace(endpoint.revisions.latest("number").wish, llm=LlmSpec(top_k=7))
