"""Settings that a GPU or a model file can't give are named at their field, with what to choose instead."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from endpoints.fitting import Unfit, device_of, fit, found_of
from endpoints.gguf import GGUFFacts, read_facts
from endpoints.memory import KV_TYPE_FOR, KV_TYPES, Floor, format_problem, precision_problem
from endpoints.models import InstanceType
from endpoints.spec import GIB
from tests import make
from tests.model_files import gguf


def facts_of(weights: str = "F16", **metadata: Any) -> GGUFFacts:
    data = gguf(metadata, [("blk.0.attn_q.weight", (64, 64), weights)])
    facts = read_facts(lambda offset, size: data[offset : offset + size], len(data))
    return replace(facts, key_length=64)


@pytest.mark.parametrize("gpu", ["NVIDIA T4", "T4", "Tesla T4", "NVIDIA V100", "Tesla V100-SXM2-16GB", (7, 5)])
def test_cards_before_ampere_cannot_do_bfloat16(gpu: str | tuple[int, int]) -> None:
    said = precision_problem(gpu, "bfloat16")
    assert said is not None
    assert "Choose float16" in said


def test_the_reason_names_the_card_and_its_capability() -> None:
    said = precision_problem("NVIDIA T4", "bfloat16")
    assert said is not None
    assert said.startswith("NVIDIA T4 can't compute in bfloat16: it has compute capability 7.5")


@pytest.mark.parametrize("gpu", ["NVIDIA A100", "A10G", "NVIDIA H100 80GB HBM3", (8, 0)])
def test_cards_since_ampere_can(gpu: str | tuple[int, int]) -> None:
    assert precision_problem(gpu, "bfloat16") is None


@pytest.mark.parametrize("data_type", ["float32", "float16", "int8"])
def test_other_types_are_no_problem_for_a_t4(data_type: str) -> None:
    assert precision_problem("NVIDIA T4", data_type) is None


@pytest.mark.parametrize(
    ("gpu", "named", "usable"),
    [
        ("NVIDIA T4", 16, 15),
        ("NVIDIA A10G", 24, 22.5),
        ("NVIDIA A10G", 22, 22),
        ("NVIDIA A100", 40, 40),
        ("Acme", 9, 9),
    ],
)
def test_a_card_gives_no_more_than_its_driver_has(gpu: str, named: int, usable: float) -> None:
    machine = InstanceType(slug="g", vcpus=1, memory_bytes=GIB, gpu=gpu, gpu_count=1, gpu_memory_bytes=named * GIB)
    assert device_of(machine).available_bytes == int(usable * GIB * 0.9)


def test_a_card_nobody_knows_is_not_refused() -> None:
    assert precision_problem("Acme T4000", "bfloat16") is None


@pytest.mark.parametrize("stored", ["F32", "F16", "Q8_0", "Q4_1"])
def test_auto_takes_any_file(stored: str) -> None:
    assert format_problem(facts_of(stored), "auto", "float16") == {}


@pytest.mark.parametrize(("load_format", "stored"), [("FP32", "F32"), ("fp16", "F16"), ("INT8", "Q8_0")])
def test_a_load_format_takes_the_file_that_has_it(load_format: str, stored: str) -> None:
    assert format_problem(facts_of(stored), load_format, "float16") == {}


@pytest.mark.parametrize(
    ("load_format", "stored"), [("FP32", "F16"), ("FP16", "Q8_0"), ("INT8", "Q4_1"), ("FP16", "F32")]
)
def test_a_load_format_the_file_does_not_have_is_refused(load_format: str, stored: str) -> None:
    said = format_problem(facts_of(stored), load_format, "float16")["load_format"]
    assert stored in said
    assert "choose Auto" in said


def test_an_unknown_load_format_is_refused() -> None:
    assert "FP8" in format_problem(facts_of(), "FP8", "float16")["load_format"]


@pytest.mark.parametrize("data_type", ["float32", "float16", "bfloat16", "int8"])
def test_every_data_type_of_the_form_becomes_a_cache_type(data_type: str) -> None:
    assert format_problem(facts_of(), "auto", data_type) == {}
    assert KV_TYPE_FOR[data_type] in KV_TYPES


def test_an_unknown_data_type_is_refused() -> None:
    assert "float8" in format_problem(facts_of(), "auto", "float8")["data_type"]


def test_heads_that_do_not_fill_a_block_cannot_be_kept_as_int8() -> None:
    said = format_problem(replace(facts_of(), key_length=80), "auto", "int8")["data_type"]
    assert "80" in said


@pytest.mark.parametrize("quantization", ["dynamic", "static", "qat"])
def test_a_gguf_cannot_be_quantized_while_it_is_loaded(quantization: str) -> None:
    said = format_problem(facts_of("Q4_1"), "auto", "float16", quantization)["quantization"]
    assert "Q4_1" in said


@pytest.mark.parametrize("quantization", ["", "none", "None"])
def test_no_quantization_is_no_problem(quantization: str) -> None:
    assert format_problem(facts_of(), "auto", "float16", quantization) == {}


def test_a_length_beyond_the_training_is_refused() -> None:
    said = format_problem(facts_of(), "auto", "float16", max_length=8192)["max_sequence_length"]
    assert "4,096" in said


def test_the_trained_length_itself_is_fine() -> None:
    assert format_problem(facts_of(), "auto", "float16", max_length=4096) == {}


def test_every_problem_is_named_at_once() -> None:
    found = format_problem(facts_of(), "INT8", "float8", "dynamic", max_length=9999)
    assert set(found) == {"load_format", "data_type", "quantization", "max_sequence_length"}


def test_a_start_says_the_same_of_its_files_as_the_first_validation_did() -> None:
    resolved = {"commit": "2", "file": "", "files": ["model.py", "weights/all.bin"], "size": 3 << 20}
    spec = replace(make.spec(), framework="python")
    said = fit(spec, found_of(resolved), InstanceType(slug="m", vcpus=1, memory_bytes=8 << 30))
    assert said == "2 files at version 2, 3 MiB, memory need not known."


def test_a_model_whose_need_nobody_can_count_is_refused_where_it_ran_out_of_memory() -> None:
    resolved = {"commit": "2", "file": "", "files": ["model.py"], "size": 1 << 20}
    found, floor = found_of(resolved), Floor(4 << 30, 2048, 1, date(2026, 11, 28))
    spec = replace(make.spec(), framework="python")
    small, large = (InstanceType(slug="m", vcpus=1, memory_bytes=gib << 30) for gib in (4, 8))
    told = "An instance of this model ran out of memory at 4 GiB on 28 Nov (2,048 tokens × 1)."
    with pytest.raises(Unfit) as refused:
        fit(spec, found, small, floor=floor)
    assert str(refused.value).startswith(f"{told} It needs more than 4.00 GiB and m has 4.00 GiB.")
    assert fit(spec, found, large, floor=floor).endswith(f"memory need not known. {told}")
    less = replace(spec, llm=replace(spec.llm, max_sequence_length=1024))
    assert fit(less, found, small, floor=floor).endswith("memory need not known.")
