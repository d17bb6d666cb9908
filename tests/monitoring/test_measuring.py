"""What an instance was seen to use takes the place of the assumption in the next estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from endpoints.fitting import found_of, need_of
from endpoints.memory import Parts
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


def settled(steering: Steering) -> tuple[Endpoint, Parts]:
    """An instance that runs, and what is assumed of it."""
    register_model()
    endpoint = make.endpoint()
    steering.until(endpoint, "active")
    revision = endpoint.revisions.get()
    need = need_of(revision.wish.engine, revision.wish.llm, found_of(revision.resolved), revision.instance_type)
    assert need
    assert need.parts
    return endpoint, need.parts


def test_what_is_not_all_there_teaches_nothing(steering: Steering) -> None:
    """Weights that nobody read yet would otherwise let the next estimate count on their absence."""
    endpoint, parts = settled(steering)
    used(endpoint, steering, parts.weights + parts.kv - 1)
    assert measure(at=steering.clock() + timedelta(minutes=2)) == 0


def test_less_than_assumed_is_learned_too_and_holds_for_other_lengths(steering: Steering) -> None:
    endpoint, parts = settled(steering)
    used(endpoint, steering, parts.total - 20 * MIB)
    assert measure(at=steering.clock() + timedelta(minutes=2)) == 1
    revision, note = endpoint.revisions.get(), MeasuredMemory.objects.get()
    assert note.correction_bytes == -20 * MIB
    spec, found = revision.wish, found_of(revision.resolved)
    longer = replace(spec.llm, max_sequence_length=4096, batch_size=4)
    guess, known = (
        need_of(spec.engine, longer, found, revision.instance_type, correction=correction)
        for correction in (None, note.correction_bytes)
    )
    assert guess
    assert guess.parts
    assert known
    assert known.parts
    assert known.need_bytes == (guess.need_bytes or 0) - 20 * MIB
    assert (known.parts.weights, known.parts.kv) == (guess.parts.weights, guess.parts.kv)


def test_what_several_cards_hold_is_told_as_one_and_counted_for_each(steering: Steering) -> None:
    endpoint, _ = settled(steering)
    revision = endpoint.revisions.get()
    machine = revision.instance_type
    machine.gpu, machine.gpu_count, machine.gpu_memory_bytes = "NVIDIA T4", 4, 16 << 30
    machine.save()
    for instance in endpoint.instances.live():
        Sample.objects.create(endpoint=endpoint, instance=instance, at=steering.clock(), gpu_memory_bytes=8 << 30)
    assert measure(at=steering.clock() + timedelta(minutes=2)) == 1
    assert MeasuredMemory.objects.get().used_bytes == 2 << 30


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
        return MeasuredMemory.note("m", "llama.cpp", "float16", machine, correction=above, used=above + 1, at=when)

    assert note(5)
    assert not note(4)
    assert note(6)
    assert note(3, days=8)
    known = MeasuredMemory.known("m", "llama.cpp", "float16", machine, at=at + timedelta(days=8))
    assert known == 3
    assert MeasuredMemory.known("m", "llama.cpp", "float16", machine, at=at + timedelta(days=200)) is None
    assert MeasuredMemory.known("m", "llama.cpp", "float32", machine, at=at) is None
