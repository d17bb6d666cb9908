import pytest

from endpoints.models import Endpoint
from endpoints.models.endpoint import Refused
from endpoints.status import Status
from tests import make

pytestmark = pytest.mark.django_db


def test_a_launch_has_six_phases_and_a_taken_name_leaves_nothing() -> None:
    first = make.endpoint(name="demo")
    assert [phase.kind for phase in first.latest_deployment.phases.all()] == [
        "validation", "build", "allocation", "loading", "health", "ready",
    ]  # fmt: skip
    with pytest.raises(Refused) as refused:
        make.endpoint(name="demo")
    assert refused.value.field == "name"
    assert Endpoint.objects.count() == 1


def test_make_serves() -> None:
    endpoint = make.endpoint(ready=2)
    assert endpoint.status == Status.ACTIVE
    assert endpoint.instances.live().count() == 2
