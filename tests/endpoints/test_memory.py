"""The need of memory that decides what may be deployed: published numbers, measured points, every trap."""

from dataclasses import replace
from typing import Any

import pytest

from endpoints.gguf import GGUFFacts, read_facts
from endpoints.memory import (
    Device,
    Estimate,
    Layers,
    ModelShape,
    Verdict,
    bytes_per_token,
    estimate,
    kv_bytes,
    quick_estimate,
    shape_from_config,
    shape_from_gguf,
)
from tests.model_files import gguf, smollm2

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def facts_of(**metadata: Any) -> GGUFFacts:
    """A GGUF's facts with these entries; __ stands for the dot in a key."""
    renamed = {key.replace("__", ".") if "__" in key else f"llama.{key}": value for key, value in metadata.items()}
    data = gguf(renamed)
    return read_facts(lambda offset, size: data[offset : offset + size], len(data))


def per_token(shape: ModelShape, kv_type: str = "bf16") -> float:
    """Bytes that one more token costs, in the model's middle range."""
    longer = kv_bytes(shape, length=204_800, concurrency=1, kv_type=kv_type, engine="llama.cpp")
    shorter = kv_bytes(shape, length=102_400, concurrency=1, kv_type=kv_type, engine="llama.cpp")
    assert longer is not None
    assert shorter is not None
    return (longer - shorter) / 102_400


def config(layers: int, heads: int, kv_heads: int | None, hidden: int, **more: Any) -> ModelShape:
    described = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    if kv_heads:
        described["num_key_value_heads"] = kv_heads
    return shape_from_config(described | more, GIB)


def on_cpu(shape: ModelShape, length: int, slots: int, kv_type: str = "f16", *, gib: float = 4) -> Estimate:
    device = Device("cpu", int(gib * GIB))
    return estimate(shape, length=length, concurrency=slots, kv_type=kv_type, engine="llama.cpp", device=device)


@pytest.fixture(scope="module")
def smollm() -> ModelShape:
    path = smollm2()
    with path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return shape_from_gguf(read_facts(read, path.stat().st_size))


# Resident MiB of llama.cpp's server (xllamacpp 2026.10) in a Python process after one answer per slot, two
# threads, 700-token prompts: model, context of a slot, slots, cache type -> resident.
MEASURED = [
    (128, 1, "f16", 165),
    (512, 1, "f16", 181),
    (2048, 1, "f16", 218),
    (8192, 1, "f16", 353),
    (2048, 4, "f16", 356),
    (2048, 8, "f16", 540),
    (2048, 16, "f16", 909),
    (8192, 4, "f16", 896),
    (8192, 8, "f16", 1621),
    (2048, 1, "f32", 264),
    (8192, 4, "f32", 1618),
    (2048, 1, "q8_0", 197),
    (8192, 4, "q8_0", 559),
    (8192, 4, "bf16", 897),
]


@pytest.mark.parametrize(("length", "slots", "kv_type", "resident"), MEASURED)
def test_the_cpu_estimate_is_what_llama_cpp_was_seen_to_use_and_never_less(
    smollm: ModelShape, length: int, slots: int, kv_type: str, resident: int
) -> None:
    found = on_cpu(smollm, length, slots, kv_type)
    assert found.need_bytes is not None
    assert resident <= found.need_bytes / MIB <= resident * 1.06


# The same of a model of 604 million parameters in F16 with SmolLM2's vocabulary: other shape, same rule.
BIGGER = ModelShape(
    weight_bytes=1_208_090_624,
    attention=(Layers(8, kv_heads=8, key_length=128, value_length=128),),
    hidden=2048,
    feed_forward=8192,
    vocabulary=49_152,
)


@pytest.mark.parametrize(("length", "slots", "resident"), [(2048, 1, 1348), (4096, 4, 1807)])
def test_the_cpu_estimate_holds_for_another_shape(length: int, slots: int, resident: int) -> None:
    found = on_cpu(BIGGER, length, slots)
    assert found.need_bytes is not None
    assert found.need_bytes / MIB == pytest.approx(resident, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "kib"),
    [
        pytest.param(config(32, 32, None, 4096), 512, id="Llama-2-7B"),
        pytest.param(config(32, 32, 8, 4096), 128, id="Llama-3-8B"),
        pytest.param(config(80, 64, 8, 8192), 320, id="Llama-3-70B"),
        pytest.param(config(28, 28, 4, 3584), 56, id="Qwen2.5-7B"),
        pytest.param(config(28, 16, 8, 1024, head_dim=128), 112, id="Qwen3-0.6B"),
        pytest.param(config(61, 128, 128, 7168, kv_lora_rank=512, qk_rope_head_dim=64), 68.625, id="DeepSeek-V3"),
        pytest.param(config(24, 32, None, 2048, multi_query=True), 6, id="multi-query"),
    ],
)
def test_the_cache_of_well_known_models_per_token(shape: ModelShape, kib: float) -> None:
    assert per_token(shape) == kib * KIB


def test_qwen2_7b_at_its_longest_agrees_with_gguf_parser() -> None:
    kept = kv_bytes(config(28, 28, 4, 3584), length=131_072, concurrency=1, kv_type="f16", engine="llama.cpp")
    assert kept == 7 * GIB


def test_smollm2_keeps_22_5_kib_per_token(smollm: ModelShape) -> None:
    assert per_token(smollm, "f16") == 22.5 * KIB


def test_a_gguf_says_its_own_head_size() -> None:
    facts = facts_of(**{"attention.key_length": 128, "attention.value_length": 96})
    assert per_token(shape_from_gguf(facts), "f16") == 2 * 2 * (128 + 96) * 2


def test_layers_of_a_gguf_without_a_cache_are_left_out() -> None:
    facts = facts_of(**{"attention.head_count_kv": [2, 0]})
    assert per_token(shape_from_gguf(facts), "f16") == 1 * 2 * (16 + 16) * 2


def test_heads_of_keys_default_to_all_heads() -> None:
    without = replace(facts_of(), head_count_kv=())
    assert per_token(shape_from_gguf(without), "f16") == 2 * 4 * (16 + 16) * 2


def test_windowed_layers_keep_no_more_than_their_window() -> None:
    gemma = config(62, 32, 16, 5376, head_dim=128, sliding_window=1024, sliding_window_pattern=6)
    whole = config(62, 32, 16, 5376, head_dim=128)
    assert per_token(gemma) == per_token(whole) * 10 / 62
    at_128k = kv_bytes(gemma, length=131_072, concurrency=1, kv_type="bf16", engine="llama.cpp")
    assert at_128k is not None
    assert 10 * GIB < at_128k < 11 * GIB  # 62 GiB if every layer is counted in full


def test_layer_types_tell_windowed_layers_from_whole_ones() -> None:
    types = ["sliding_attention", "full_attention"] * 12
    assert per_token(config(24, 64, 8, 2880, head_dim=64, sliding_window=128, layer_types=types)) == 12 * 2048


def test_a_window_that_is_switched_off_does_not_count() -> None:
    off = config(28, 28, 4, 3584, sliding_window=32_768, use_sliding_window=False)
    assert per_token(off) == per_token(config(28, 28, 4, 3584))


def test_the_first_layers_may_stay_whole_when_a_window_is_on() -> None:
    on = config(28, 28, 4, 3584, sliding_window=4096, use_sliding_window=True, max_window_layers=21)
    assert per_token(on) == per_token(config(21, 28, 4, 3584))


def test_a_window_in_every_layer_bounds_the_cache() -> None:
    assert per_token(config(32, 32, 8, 4096, sliding_window=4096, model_type="mistral")) == 0


def test_a_ggufs_window_follows_its_own_pattern() -> None:
    pattern = {"attention.sliding_window": 64, "attention.sliding_window_pattern": [True, False]}
    assert per_token(shape_from_gguf(facts_of(**pattern)), "f16") == 1 * 2 * (16 + 16) * 2


def test_a_ggufs_window_follows_its_architecture() -> None:
    facts = replace(facts_of(**{"attention.sliding_window": 64}), architecture="gemma3", block_count=6)
    assert per_token(shape_from_gguf(facts), "f16") == 1 * 2 * (16 + 16) * 2


def test_an_unknown_window_pattern_is_counted_in_full_and_said() -> None:
    shape = shape_from_gguf(facts_of(**{"attention.sliding_window": 64}))
    assert per_token(shape, "f16") == 2 * 2 * (16 + 16) * 2
    assert "upper bound" in shape.notes[0]


def test_latent_attention_of_a_gguf_keeps_one_vector() -> None:
    latent = {"attention.kv_lora_rank": 512, "rope.dimension_count": 64}
    facts = facts_of(**latent, **{"attention.key_length_mla": 192})
    assert per_token(shape_from_gguf(facts), "f16") == 2 * 576 * 2


def test_packed_latent_cache_is_656_bytes_a_layer() -> None:
    shape = config(61, 128, 128, 7168, kv_lora_rank=512, qk_rope_head_dim=64)
    assert per_token(shape, "fp8_ds_mla") == 61 * 656


@pytest.mark.parametrize(
    ("kv_type", "bytes_per_value"),
    [("f32", 4), ("f16", 2), ("bf16", 2), ("q8_0", 34 / 32), ("q5_1", 24 / 32), ("q4_0", 18 / 32), ("fp8", 1)],
)
def test_block_formats_are_counted_per_value_not_per_block(kv_type: str, bytes_per_value: float) -> None:
    layers = Layers(1, kv_heads=8, key_length=128, value_length=128)
    assert bytes_per_token(layers, kv_type) == 2 * 8 * 128 * bytes_per_value


def test_scales_per_token_and_head_are_counted() -> None:
    layers = Layers(1, kv_heads=8, key_length=128, value_length=128)
    assert bytes_per_token(layers, "int8_per_token_head") == 2 * 8 * 128 + 2 * 8 * 4


def test_state_space_models_keep_the_same_for_any_length() -> None:
    mamba = shape_from_config(
        {"model_type": "mamba", "num_hidden_layers": 48, "hidden_size": 1536, "intermediate_size": 3072}, GIB
    )
    short = kv_bytes(mamba, length=128, concurrency=2, kv_type="f16", engine="llama.cpp")
    assert short == kv_bytes(mamba, length=8192, concurrency=2, kv_type="f16", engine="llama.cpp")
    assert short == 2 * 48 * 3072 * (16 + 3) * 4


def test_hybrids_pay_for_both_kinds_of_layers() -> None:
    jamba = config(32, 32, 8, 4096, attn_layer_period=8, attn_layer_offset=4, model_type="jamba")
    assert per_token(jamba) == per_token(config(4, 32, 8, 4096))
    assert jamba.state_bytes == 28 * 8192 * (16 + 3) * 4


def test_linear_attention_layers_keep_a_state() -> None:
    linear = {"linear_num_key_heads": 16, "linear_key_head_dim": 128}
    linear |= {"linear_num_value_heads": 32, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4}
    types = (["linear_attention"] * 3 + ["full_attention"]) * 12
    shape = config(48, 16, 2, 2048, head_dim=256, layer_types=types, **linear)
    assert per_token(shape) == per_token(config(12, 16, 2, 2048, head_dim=256))
    assert shape.state_bytes == 36 * (4096 * 128 + 3 * (2 * 2048 + 4096)) * 4


def test_a_hybrid_gguf_keeps_a_state_where_it_has_no_heads() -> None:
    ssm = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.group_count": 1}
    shape = shape_from_gguf(facts_of(**ssm, **{"attention.head_count_kv": [2, 0]}))
    assert shape.state_bytes == 1 * (3 * (128 + 2 * 16) + 128 * 16) * 4
    every_second = facts_of(**ssm, full_attention_interval=2)
    assert shape_from_gguf(every_second).state_bytes == shape.state_bytes
    assert per_token(shape_from_gguf(every_second), "f16") == per_token(shape, "f16")


def test_a_pure_state_space_gguf_has_no_cache() -> None:
    facts = replace(facts_of(**{"ssm.inner_size": 128, "ssm.state_size": 16}), head_count=(), head_count_kv=())
    shape = shape_from_gguf(facts)
    assert shape.attention == ()
    assert shape.state_bytes == 2 * 128 * 16 * 4


def test_encoders_keep_nothing() -> None:
    bert = config(12, 12, None, 768, model_type="bert")
    assert kv_bytes(bert, length=512, concurrency=64, kv_type="f16", engine="llama.cpp") == 0
    embedding = shape_from_gguf(facts_of(**{"attention.causal": False}))
    assert kv_bytes(embedding, length=512, concurrency=64, kv_type="f16", engine="llama.cpp") == 0


def test_decoders_of_encoders_keep_both_sides() -> None:
    t5 = {"is_encoder_decoder": True, "num_decoder_layers": 6, "num_heads": 8, "d_model": 512, "d_kv": 64}
    assert per_token(shape_from_config(t5, GIB)) == 2 * 6 * 2 * 8 * 64 * 2


def test_a_multimodal_model_is_judged_by_its_text_part() -> None:
    text = {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584}
    both = shape_from_config({"text_config": text, "num_hidden_layers": 999, "vision_config": {}}, GIB)
    assert per_token(both) == 56 * KIB


@pytest.mark.parametrize(("tp", "kib"), [(1, 128), (2, 64), (8, 16), (16, 16)])
def test_gpus_share_the_cache_until_heads_run_out(tp: int, kib: int) -> None:
    llama = config(32, 32, 8, 4096)
    assert kv_bytes(llama, length=16, concurrency=1, kv_type="f16", engine="vllm", gpus=tp) == 16 * kib * KIB


LLAMA_3_8B = replace(config(32, 32, 8, 4096), weight_bytes=16_060_522_496, trained_context=8192)
A100 = Device("gpu", 40 * GIB, utilization=0.9)


def on_gpu(device: Device = A100, shape: ModelShape = LLAMA_3_8B, **more: Any) -> Any:
    settings: dict[str, Any] = {"length": 8192, "concurrency": 4, "kv_type": "f16", "engine": "vllm"} | more
    return estimate(shape, device=device, **settings)


def test_a_gpus_need_has_its_parts() -> None:
    found = on_gpu()
    assert found.parts.weights == int(16_060_522_496 * 1.02)
    assert found.parts.kv == 4 * GIB
    assert found.parts.activations == int(16_060_522_496 * 0.05)
    assert found.parts.base == 2 * GIB
    assert found.need_bytes == found.parts.total
    assert found.verdict is Verdict.FITS


def test_without_graphs_the_base_is_smaller() -> None:
    assert on_gpu(eager=True).parts.base == GIB


def test_small_models_still_need_half_a_gib_of_activations() -> None:
    assert on_gpu(shape=replace(LLAMA_3_8B, weight_bytes=GIB)).parts.activations == 512 * MIB


def test_a_share_of_the_card_is_taken_from_what_others_leave() -> None:
    assert Device("gpu", 40 * GIB, reserved_bytes=10 * GIB, utilization=0.9).available_bytes == 27 * GIB


def test_the_verdict_turns_tight_below_a_tenth_and_then_no() -> None:
    need = on_gpu().need_bytes
    assert on_gpu(Device("gpu", int(need / 0.89))).verdict is Verdict.FITS
    assert on_gpu(Device("gpu", int(need / 0.91))).verdict is Verdict.TIGHT
    assert on_gpu(Device("gpu", need)).verdict is Verdict.TIGHT
    assert on_gpu(Device("gpu", need - 1)).verdict is Verdict.DOES_NOT_FIT


def test_the_largest_that_fits_really_is() -> None:
    found = on_gpu(Device("gpu", 20 * GIB))
    assert on_gpu(Device("gpu", 20 * GIB), length=found.largest_length).need_bytes <= 20 * GIB
    assert on_gpu(Device("gpu", 20 * GIB), length=found.largest_length + 1).need_bytes > 20 * GIB
    most = on_gpu().largest_concurrency
    assert on_gpu(concurrency=most).need_bytes <= A100.available_bytes < on_gpu(concurrency=most + 1).need_bytes


def test_the_largest_length_stops_at_what_the_model_was_trained_for() -> None:
    assert on_gpu(concurrency=1).largest_length == 8192


def test_nothing_fits_a_card_smaller_than_the_weights() -> None:
    found = on_gpu(Device("gpu", 8 * GIB))
    assert (found.verdict, found.largest_length, found.largest_concurrency) == (Verdict.DOES_NOT_FIT, 0, 0)


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        (replace(LLAMA_3_8B, weight_bytes=None), "size of the weights"),
        (replace(LLAMA_3_8B, weight_bytes=0), "size of the weights"),
        (replace(LLAMA_3_8B, attention=None), "layers or heads"),
        (shape_from_config({}, GIB), "layers or heads"),
    ],
)
def test_what_is_not_known_is_not_guessed(shape: ModelShape, named: str) -> None:
    found = on_gpu(shape=shape)
    assert found.verdict is Verdict.UNKNOWN
    assert found.need_bytes is None
    assert named in found.notes[-1]


def test_the_need_is_a_range_until_it_is_measured() -> None:
    assumed = on_gpu()
    assert assumed.low_bytes < assumed.need_bytes < assumed.high_bytes
    measured = on_gpu(correction=-GIB // 4)
    assert measured.low_bytes == measured.need_bytes == measured.high_bytes == assumed.need_bytes - GIB // 4
    assert measured.measured


def test_heads_that_do_not_divide_are_refused() -> None:
    found = on_gpu(gpus=3)
    assert found.verdict is Verdict.DOES_NOT_FIT
    assert "32 attention heads can't be divided among 3 GPUs" in found.notes[0]


def test_repeated_heads_are_said() -> None:
    assert any("copy" in note for note in on_gpu(gpus=16).notes)
    assert not on_gpu(gpus=8).notes


def test_a_length_beyond_the_training_is_said() -> None:
    assert "8,192 tokens" in on_gpu(length=16_384).notes[0]


def test_the_quick_formula_counts_billions_of_parameters_not_gigabytes() -> None:
    found = quick_estimate(8, 2, batch=1, length=8192, hidden=4096)
    assert found.plain_bytes == 16_000_000_000 + 128 * MIB
    assert found.low_bytes == found.plain_bytes * 6 // 5
    assert found.high_bytes == found.plain_bytes * 13 // 10
