"""What an instance was seen to use takes the place of the assumption in the next estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from endpoints.fitting import found_of, need_of
from endpoints.learning import note_ends
from endpoints.memory import Parts
from endpoints.models import Endpoint, Instance, MeasuredMemory, MemoryFloor, Phase
from endpoints.models.deployment import InstanceState
from endpoints.regions import replace_runtime
from endpoints.safetensors import Weights
from monitoring.measuring import measure
from monitoring.models import LogLine, Sample
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


def ended(endpoint: Endpoint, steering: Steering, *, lived: timedelta, **fields: Any) -> None:
    """An instance of this endpoint that failed now, as the controller writes it down."""
    at, told = steering.clock(), {"reason": "OOMKilled", "message": "Killed: it needed more memory."} | fields
    one = make.instance(endpoint, started_at=at - lived, state=InstanceState.FAILED, ended_at=at, **told)
    note_ends(endpoint, [one.name])


def test_one_end_is_one_note_and_a_longer_life_with_no_more_memory_takes_it_away(steering: Steering) -> None:
    register_model()
    endpoint = make.endpoint()
    steering.until(endpoint, "active")
    first = endpoint.instances.live().get()
    for lived in (timedelta(minutes=2), timedelta(hours=5), timedelta(minutes=2)):
        ended(endpoint, steering, lived=lived)
    floor = MemoryFloor.objects.get()
    assert (floor.limit_bytes, floor.lived) == (4 << 30, timedelta(hours=5))

    measure(at=steering.clock() + timedelta(hours=6))
    assert MemoryFloor.objects.exists(), "it ran before, and proves nothing of what came later"
    Instance.objects.filter(pk=first.pk).update(started_at=steering.clock(), ready_at=steering.clock())
    measure(at=steering.clock() + timedelta(hours=4))
    assert MemoryFloor.objects.exists(), "it has not yet lived as long"

    revision = endpoint.revisions.get()
    revision.spec["llm"]["max_sequence_length"] = 128
    revision.save()
    measure(at=steering.clock() + timedelta(hours=6))
    assert MemoryFloor.objects.exists(), "it is asked for less"
    revision.spec["llm"]["max_sequence_length"] = 2048
    revision.save()
    revision.instance_type.memory_bytes = 8 << 30
    revision.instance_type.save()
    measure(at=steering.clock() + timedelta(hours=6))
    assert MemoryFloor.objects.exists(), "it has more"
    revision.instance_type.memory_bytes = 4 << 30
    revision.instance_type.save()
    measure(at=steering.clock() + timedelta(hours=6))
    assert not MemoryFloor.objects.exists()


def test_a_lesser_end_replaces_none_that_tells_more(steering: Steering) -> None:
    endpoint, _ = settled(steering)
    machine = endpoint.revisions.get().instance_type
    limits = []
    for gib in (4, 2, 8):
        machine.memory_bytes = gib << 30
        machine.save()
        ended(endpoint, steering, lived=timedelta(minutes=2))
        limits.append(MemoryFloor.objects.get().limit_bytes >> 30)
    assert limits == [4, 4, 8]


@pytest.mark.parametrize(
    ("reason", "message", "counts"),
    [
        ("OOMKilled", "Killed: it needed more memory than its limit.", False),
        ("OutOfMemory", "Exit code 1: MemoryError.", False),
        ("OutOfMemory", "Exit code 1: CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("Exited", "Exit code 1: CUDA out of memory. Tried to allocate 2.00 GiB.", False),
    ],
)
def test_with_a_card_only_the_card_counts(steering: Steering, reason: str, message: str, counts: bool) -> None:
    endpoint, _ = settled(steering)
    machine = endpoint.revisions.get().instance_type
    machine.gpu, machine.gpu_count, machine.gpu_memory_bytes = "NVIDIA T4", 1, 16 << 30
    machine.save()
    ended(endpoint, steering, lived=timedelta(minutes=2), reason=reason, message=message)
    assert [row.limit_bytes for row in MemoryFloor.objects.all()] == [int((15 << 30) * 0.9)] * counts


LLAMA_3_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "vocab_size": 128256,
}
STARTED = """\
(EngineCore pid=114) INFO 09-25 02:25:49 [gpu_worker.py:760] Available KV cache memory: {cache} GiB
(EngineCore pid=114) INFO 09-25 02:25:49 [kv_cache_utils.py:2327] GPU KV cache size: 140,480 tokens, Maximum \
concurrency for 2,048 tokens per request: 68.60x
(EngineCore pid=114) INFO 09-25 02:25:51 [gpu_worker.py:1033] Free memory on device (39.0/39.49 GiB) on startup. \
Desired GPU memory utilization is (0.9, 35.54 GiB). Actual usage is 15.4 GiB for consumed memory (weights + \
non-torch), 1.22 GiB for peak activation, and 0.57 GiB for CUDAGraph memory. Replace gpu_memory_utilization \
config with `--kv-cache-memory=19335995846` (18.01 GiB) to fit into requested memory, or \
`--kv-cache-memory=22890736384` (21.32 GiB) to fully utilize gpu memory. Current kv cache memory in use is \
{cache} GiB.
"""


def serve_by_vllm(endpoint: Endpoint) -> None:
    """Let its revision be one that vLLM serves on a card."""
    revision = endpoint.revisions.get()
    machine = revision.instance_type
    machine.gpu, machine.gpu_count, machine.gpu_memory_bytes = "NVIDIA A100", 1, 40 << 30
    machine.save()
    weights = Weights(16 * 10**9, 8 * 10**9, {"BF16": 16 * 10**9}, LLAMA_3_8B)
    revision.spec["framework"] = "vllm"
    revision.resolved |= {"facts": None, "weights": weights.to_dict(), "file": ""}
    revision.save()


def test_what_vllm_says_of_itself_counts_and_not_the_share_that_it_takes(steering: Steering) -> None:
    endpoint, _ = settled(steering)
    serve_by_vllm(endpoint)
    instance, at = endpoint.instances.live().get(), steering.clock()
    Sample.objects.create(endpoint=endpoint, instance=instance, at=at, gpu_memory_bytes=36 << 30)
    assert measure(at=at + timedelta(minutes=2)) == 0, "its share of the card says nothing"
    for number, line in enumerate(STARTED.format(cache="18.54").splitlines(), 1):
        LogLine.objects.create(
            instance=instance, endpoint=endpoint, sequence=number, offset=number, at=at, stream="stderr", text=line
        )
    assert measure(at=at + timedelta(minutes=2)) == 1

    revision, note = endpoint.revisions.get(), MeasuredMemory.objects.get()
    found, machine = found_of(revision.resolved), revision.instance_type
    short, long = (
        need_of("vllm", replace(revision.wish.llm, max_sequence_length=length), found, machine,
                correction=note.correction_bytes)
        for length in (2048, 8192)
    )  # fmt: skip
    assert short
    assert long
    token = 128 << 10
    besides = 17 << 30  # 35.54 GiB that it may take, less 18.54 of cache
    assert short.need_bytes == pytest.approx(besides + 2048 * token, abs=MIB)
    assert (long.need_bytes or 0) - (short.need_bytes or 0) == 6144 * token
    assert short.measured
