"""What an instance was seen to use takes the place of the assumption in the next estimate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from endpoints.fitting import found_of, need_of
from endpoints.models import Endpoint, MeasuredMemory, Phase
from endpoints.regions import replace_runtime
from monitoring.measuring import measure
from monitoring.models import Sample
from tests import make
from tests.endpoints.steering import Steering, register_model
from tests.runtimes import InstantRuntime

pytestmark = pytest.mark.django_db
MIB = 1 << 20


@pytest.fixture
def steering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steering]:
    yield Steering(InstantRuntime(), monkeypatch)
    replace_runtime("local", None)


def used(endpoint: Endpoint, steering: Steering, size: int) -> None:
    for instance in endpoint.instances.live():
        Sample.objects.create(
            endpoint=endpoint, instance=instance, at=steering.clock(), cpu_millis=1, memory_bytes=size
        )


def test_a_lone_settled_instance_teaches_the_next_estimate(steering: Steering) -> None:
    register_model()
    endpoint = make.endpoint()
    steering.until(endpoint, "active")
    used(endpoint, steering, 700 * MIB)
    assert measure(at=steering.clock()) == 0, "it has only just begun"
    at = steering.clock() + timedelta(minutes=2)
    assert measure(at=at) == 1
    revision = endpoint.revisions.get()
    spec, found = revision.wish, found_of(revision.resolved)
    guess = need_of(spec.engine, spec.llm, found, revision.instance_type)
    note = MeasuredMemory.objects.get()
    known = need_of(spec.engine, spec.llm, found, revision.instance_type, correction=note.correction_bytes)
    assert guess
    assert known
    assert (guess.measured, known.measured) == (False, True)
    assert known.need_bytes == 700 * MIB
    assert known.low_bytes == known.high_bytes

    second = make.endpoint(name="again")
    steering.until(second, "active")
    said = Phase.objects.get(deployment__endpoint=second, kind="validation").message
    assert "measured before: needs 0.68 GiB" in said


def test_instances_that_share_a_mapped_model_teach_nothing(steering: Steering) -> None:
    register_model()
    endpoint = make.endpoint(wanted=2)
    steering.until(endpoint, "active")
    assert endpoint.instances.live().count() == 2
    used(endpoint, steering, 100 * MIB)
    assert measure(at=steering.clock() + timedelta(minutes=2)) == 0


def test_models_that_lie_at_one_path_in_their_pods_are_not_one(steering: Steering) -> None:
    register_model()
    for name in ("one", "two"):
        endpoint = make.endpoint(name=name)
        steering.until(endpoint, "active")
        used(endpoint, steering, 100 * MIB)
    assert measure(at=steering.clock() + timedelta(minutes=2)) == 0, "one model, mapped twice"
    revision = endpoint.revisions.get()
    revision.resolved |= {"commit": "another"}
    revision.save()
    assert measure(at=steering.clock() + timedelta(minutes=2)) == 2


def test_the_greatest_use_is_kept_until_it_is_old(steering: Steering) -> None:
    machine, at = make.instance_type(), steering.clock()

    def note(above: int, days: int = 0) -> bool:
        when = at + timedelta(days=days)
        return MeasuredMemory.note(
            "m", "llama.cpp", "float16", machine, correction=above, used=above + 1, at=when
        )

    assert note(5)
    assert not note(4)
    assert note(6)
    assert note(3, days=8)
    known = MeasuredMemory.known("m", "llama.cpp", "float16", machine, at=at + timedelta(days=8))
    assert known == 3
    assert MeasuredMemory.known("m", "llama.cpp", "float16", machine, at=at + timedelta(days=200)) is None
    assert MeasuredMemory.known("m", "llama.cpp", "float32", machine, at=at) is None
