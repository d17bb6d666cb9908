"""Machines that can't work are greyed out, with the reason; the server refuses them in the same words."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from endpoints import offers
from endpoints.capacity import Capacity, Piece
from endpoints.gguf import GGUFFacts
from endpoints.memory import Floor
from endpoints.models import InstanceType, MeasuredMemory, MemoryFloor, ModelVersion, Region
from endpoints.models.measured import model_digest
from endpoints.spec import GIB
from endpoints.templatetags.formats import bytes_binary
from endpoints.wizard.judge import judge
from endpoints.wizard.situation import Catalogue
from tests import model_files
from tests.endpoints.wizard.conftest import register
from tests.endpoints.wizard.way import Way

pytestmark = pytest.mark.django_db


def give(**capacity: object) -> None:
    region = Region.objects.get()
    Region.objects.update(capacity=region.capacity | capacity)


def weigh(gib: float) -> None:
    """Let the registry's model be this large."""
    version = ModelVersion.objects.get()
    facts = GGUFFacts.from_dict(version.facts).to_dict() | {"tensor_bytes": {"F16": int(gib * GIB)}}
    ModelVersion.objects.update(facts=facts, size_bytes=int(gib * GIB))


def off(page: str, slug: str) -> bool:
    card = page.partition(f'value="{slug}"')[2].partition("</label>")[0]
    return "data-refused" in card


@pytest.mark.parametrize("slug", ["g4dn.xlarge", "g4dn.2xlarge", "p3.2xlarge", "p4d.xlarge"])
def test_no_gpu_in_the_region(way: Way, slug: str) -> None:
    way.to("machine")
    page = way.see("machine")
    assert off(page, slug)
    assert not off(page, "c6i.large")
    said = escape("There is no GPU in the region “This machine”: no NVIDIA driver on this machine.")
    assert said in page
    assert said in way.refused("machine", instance_type=slug)


def test_a_region_that_can_not_be_counted_refuses_no_gpu(way: Way) -> None:
    here = Region.objects.get()
    Region.objects.filter(pk=here.pk).update(runtime="kubernetes", capacity={"reason": "May not see nodes."})
    here.refresh_from_db()
    assert offers.reason_against(here, "vllm") == ""
    way.to("machine")
    assert not off(way.see("machine"), "g4dn.xlarge")


def test_too_few_processors_even_with_overcommit(way: Way) -> None:
    give(cpu_millis=6000)
    way.to("machine")
    assert off(way.see("machine"), "c6i.2xlarge")
    assert "Needs 8 vCPUs; the region “This machine” has 6" in way.refused("machine", instance_type="c6i.2xlarge")


def test_nodes_that_are_enough_only_together_are_not(way: Way) -> None:
    node = Piece(4000, 4000, 64 * GIB, 64 * GIB, 0, 0)
    both = Capacity(8000, 8000, 128 * GIB, 128 * GIB, 0, 0, "2 nodes take instances", pieces=(node, node))
    give(**asdict(both))
    way.to("machine")
    assert not off(way.see("machine"), "c6i.large")
    said = way.refused("machine", instance_type="c6i.2xlarge")
    assert "Fits on no node of the region “This machine”; the largest has 4 vCPUs" in said


def test_a_model_larger_than_the_memory(way: Way) -> None:
    weigh(10)
    way.to("machine")
    page = way.see("machine")
    assert off(page, "c6i.large")
    assert off(page, "c6i.xlarge")
    assert "c6i.2xlarge · recommended" in page
    assert "The model needs at least" in way.refused("machine", instance_type="c6i.large")


@pytest.mark.parametrize(
    ("gib", "words"), [(1, "Fits: "), (3.6, "Tight: only "), (4.2, "Does not fit: needs "), (0, "Unknown. ")]
)
def test_the_panel_says_whether_it_fits_and_what_would(way: Way, gib: float, words: str) -> None:
    way.to("machine")
    way.passes("machine", instance_type="c6i.large")
    weigh(gib)
    page = way.see("llm")
    assert words in page
    assert ("Largest length that fits: " in page) is (words in ("Fits: ", "Tight: only "))
    assert ("Most sequences of this length: " in page) is (words in ("Fits: ", "Tight: only "))


def test_the_panel_says_what_bounds_a_length_and_goes_by_what_was_measured(way: Way) -> None:
    way.to("machine")
    way.passes("machine", instance_type="c6i.large")
    page = way.see("llm")
    assert "tokens, as many as it was trained for." in page
    assert "was seen to use" not in page
    situation = judge(way.fresh().answers, Catalogue(way.draft.project)).situation
    assert situation.source
    assert situation.look
    assert situation.machine
    model = model_digest(situation.source, situation.look.found.revision, situation.look.file, way.draft.project)
    at = timezone.now()
    MeasuredMemory.note(model, "llama.cpp", "float16", situation.machine, correction=GIB, used=2 * GIB, at=at)
    before, after = (
        one.estimate(situation.machine, length=2048, concurrency=1, data_type="float16")
        for one in (situation, judge(way.fresh().answers, Catalogue(way.draft.project)).situation)
    )
    assert before
    assert after
    assert after.need_bytes == (before.need_bytes or 0) + GIB
    assert f"{bytes_binary(after.need_bytes)}, by what an instance of this model was seen to use." in way.see(
        "llm"
    )


def test_what_ran_out_of_memory_is_refused_in_words_unless_a_person_knows_better(way: Way) -> None:
    way.to("machine")
    way.passes("machine", instance_type="c6i.large")
    situation = judge(way.fresh().answers, Catalogue(way.draft.project)).situation
    assert situation.source
    assert situation.look
    assert situation.machine
    need = situation.estimate(situation.machine, length=2048, concurrency=1, data_type="float16")
    assert need
    assert need.firm_bytes
    model = model_digest(situation.source, situation.look.found.revision, situation.look.file, way.draft.project)
    at, lived = timezone.now(), timedelta(minutes=2)
    floor = Floor(4 * GIB, 2048, 1, at.date(), above_bytes=4 * GIB - need.firm_bytes)
    told = f"An instance of this model ran out of memory at 4 GiB on {at.day} {at:%b} (2,048 tokens × 1)."
    MemoryFloor.note(model, "llama.cpp", "float16", machine=situation.machine, floor=floor, lived=lived, at=at)
    page = way.see("llm")
    assert "Does not fit: needs more than 4 GiB, has 4 GiB." in page
    assert told in page
    said = way.refused("llm", max_sequence_length="2048", batch_size="1")
    assert f"{told} 2,048 tokens × 1 need more than 4 GiB" in said
    assert "or say yourself how much it needs." in said
    way.passes("machine", instance_type="c6i.large", memory_gib="2")
    page = way.see("llm")
    assert "By your own figure 2 GiB of 4 GiB stay free, but as much was too little before." in page
    assert told in page
    way.passes("llm", max_sequence_length="2048", batch_size="1")


def test_the_panel_tells_rearranged_weights_from_those_of_the_file(way: Way) -> None:
    way.to("machine")
    way.passes("machine", instance_type="c6i.large")
    weigh(3)
    version = ModelVersion.objects.get()
    ModelVersion.objects.update(facts=version.facts | {"repacked_bytes": 2 * GIB})
    page = way.see("llm")
    assert "Tight: uses 4 GiB, and would use 5 GiB." in page
    assert "Rearranged weights" in page


def test_a_model_too_large_for_every_machine_is_never_deployed(way: Way) -> None:
    weigh(1000)
    way.to("machine")
    way.refused("machine")
    assert way.fresh().reached == 3


@pytest.mark.parametrize(("slug", "works"), [("g4dn.xlarge", False), ("p3.2xlarge", False), ("p4d.xlarge", True)])
def test_bfloat16_needs_a_card_that_can(way: Way, slug: str, works: bool) -> None:
    give(gpus=8)
    InstanceType.objects.filter(slug="p4d.xlarge").update(vcpus=8)
    way.to("llm")
    way.passes("llm", data_type="bfloat16")
    assert off(way.see("machine"), slug) is not works
    if works:
        way.passes("machine", instance_type=slug)
    else:
        assert "compute in bfloat16" in way.refused("machine", instance_type=slug)


@pytest.mark.parametrize("slug", ["g4dn.xlarge", "p3.2xlarge"])
def test_a_card_without_bfloat16_greys_the_data_type(way: Way, slug: str) -> None:
    give(gpus=8)
    way.to("machine")
    way.passes("machine", instance_type=slug)
    assert off(way.see("llm"), "bfloat16")
    assert "compute in bfloat16" in way.refused("llm", data_type="bfloat16")


def test_settings_too_large_for_the_machine_say_what_would_fit(way: Way) -> None:
    weigh(3.8)
    way.to("machine")
    way.passes("machine", instance_type="c6i.large")
    version = ModelVersion.objects.get()
    ModelVersion.objects.update(facts=version.facts | {"block_count": 64, "embedding_length": 4096})
    page = way.refused("llm", max_sequence_length="4096", batch_size="64")
    assert "larger machine" in page


def test_a_file_that_isnt_in_the_load_format_greys_it(way: Way) -> None:
    way.to("llm")
    page = way.see("llm")
    assert off(page, "int8")
    assert off(page, "fp32")
    assert not off(page, "fp16")
    assert "INT8 needs a Q8_0 file" in way.refused("llm", load_format="int8")


@pytest.mark.parametrize(
    ("field", "value"), [("quantization", "dynamic"), ("tokenizer_type", "bpe"), ("padding", "left")]
)
def test_what_llama_cpp_cant_honour_is_refused_not_dropped(way: Way, field: str, value: str) -> None:
    way.to("llm")
    assert f"id_{field}" in way.refused("llm", **{field: value})


@pytest.mark.parametrize("step", ["basics", "source", "machine", "llm", "scaling", "environment", "summary"])
def test_a_page_asks_the_database_a_bounded_number_of_times(
    way: Way, step: str, django_assert_max_num_queries: object
) -> None:
    way.to("summary")
    with django_assert_max_num_queries(24):  # type: ignore[operator]
        way.see(step)


def test_more_models_dont_mean_more_queries(way: Way) -> None:
    way.to("source")
    way.see("source")
    with CaptureQueriesContext(connection) as before:
        way.see("source")
    for number in range(20):
        register(f"more-{number}", model_files.gguf())
    with CaptureQueriesContext(connection) as after:
        way.see("source")
    assert len(after) == len(before)
