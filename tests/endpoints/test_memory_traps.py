"""What published configs leave out, and how each engine keeps what it must: where estimates go wrong unseen."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoints.gguf import merge_shards, read_facts
from endpoints.memory import (
    CHECKPOINTS,
    Device,
    Estimate,
    Layers,
    ModelShape,
    Verdict,
    estimate,
    kv_bytes,
    shape_from_config,
    shape_from_gguf,
)
from serving import llamacpp
from serving.config import EngineConfig
from tests.model_files import gguf

MIB, GIB = 1 << 20, 1 << 30


def config(model_type: str, layers: int, heads: int, kv_heads: int, hidden: int, **more: Any) -> ModelShape:
    described: dict[str, Any] = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    described |= {"model_type": model_type, "num_key_value_heads": kv_heads}
    return shape_from_config(described | more, GIB)


def kept(shape: ModelShape, length: int, engine: str = "vllm", **more: Any) -> int:
    asked: dict[str, Any] = {"concurrency": 1, "kv_type": "f16"} | more
    found = kv_bytes(shape, length=length, engine=engine, **asked)
    assert found is not None
    return found


def windows(shape: ModelShape) -> tuple[int, int]:
    """How many layers keep everything, and how many only a window."""
    attention = shape.attention or ()
    return (
        sum(layers.count for layers in attention if layers.window is None),
        sum(layers.count for layers in attention if layers.window is not None),
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # As published: the window's size is there, and which layers have it is the class's secret.
        pytest.param(
            config("gemma3_text", 62, 32, 16, 5376, head_dim=128, sliding_window=1024), (10, 52), id="Gemma 3"
        ),
        pytest.param(config("gemma2", 42, 16, 8, 3584, head_dim=256, sliding_window=4096), (21, 21), id="Gemma 2"),
        pytest.param(config("cohere2", 32, 32, 8, 4096, sliding_window=4096), (8, 24), id="Command R7B"),
        pytest.param(
            config("exaone4", 64, 40, 8, 5120, sliding_window=4096, sliding_window_pattern="LLLG"),
            (16, 48),
            id="EXAONE",
        ),
        pytest.param(config("llama4_text", 48, 40, 8, 5120, attention_chunk_size=8192), (12, 36), id="Llama 4"),
        pytest.param(config("mistral", 32, 32, 8, 4096, sliding_window=4096), (0, 32), id="Mistral 7B v0.1"),
        pytest.param(config("mistral", 32, 32, 8, 4096, sliding_window=None), (32, 0), id="Mistral 7B v0.3"),
        pytest.param(config("something_new", 32, 32, 8, 4096, sliding_window=4096), (32, 0), id="unknown"),
    ],
)
def test_the_windowed_layers_are_those_of_the_models_class(shape: ModelShape, expected: tuple[int, int]) -> None:
    assert windows(shape) == expected


def test_a_pattern_nobody_knows_is_counted_in_full_and_said() -> None:
    assert "upper bound" in config("something_new", 32, 32, 8, 4096, sliding_window=4096).notes[0]


def test_a_config_that_leaves_out_its_heads_has_those_of_its_class() -> None:
    """google/gemma-3-4b-it says no more of its text part than this."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    shape = shape_from_config({"model_type": "gemma3", "text_config": text}, GIB)
    assert windows(shape) == (5, 29)
    assert {(one.kv_heads, one.key_length) for one in shape.attention or ()} == {(4, 256)}


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        pytest.param(
            config("falcon", 60, 128, 0, 8192, multi_query=True, new_decoder_architecture=True, num_kv_heads=8),
            60 * 2 * 8 * 64,
            id="Falcon 40B: the flag of several queries means nothing",
        ),
        pytest.param(config("falcon", 32, 71, 0, 4544, multi_query=True), 32 * 2 * 64, id="Falcon 7B"),
        pytest.param(
            config("chatglm", 28, 32, 0, 4096, multi_query_group_num=2, kv_channels=128),
            28 * 2 * 2 * 128,
            id="ChatGLM",
        ),
        pytest.param(
            shape_from_config(
                {
                    "model_type": "mpt",
                    "n_layers": 32,
                    "n_heads": 32,
                    "d_model": 4096,
                    "attn_config": {"kv_n_heads": 8},
                },
                GIB,
            ),
            32 * 2 * 8 * 128,
            id="MPT",
        ),
        pytest.param(
            config("mimo", 4, 64, 4, 4096, head_dim=192, v_head_dim=128),
            4 * 4 * (192 + 128),
            id="other values than keys",
        ),
        pytest.param(
            config("minicpm3", 62, 40, 40, 2560, kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32),
            62 * 40 * 2 * 96,
            id="MiniCPM 3: latent, but kept written out",
        ),
        pytest.param(
            shape_from_config(
                {"llm_config": {"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 512}}, GIB
            ),
            2 * 2 * 512,
            id="InternVL: the part that writes text",
        ),
    ],
)
def test_heads_are_found_by_whatever_name_they_have(shape: ModelShape, values: int) -> None:
    assert kept(shape, 1600) == 1600 * values * 2


def test_whisper_keeps_its_encoders_tokens_whatever_the_length() -> None:
    described = {"is_encoder_decoder": True, "decoder_layers": 4, "decoder_attention_heads": 6, "d_model": 384}
    whisper = shape_from_config(described | {"max_source_positions": 1500}, GIB)
    assert kept(whisper, 160) == 4 * 2 * 384 * 2 * (160 + 1504)  # whole blocks of 16


MAMBA = {"mamba_n_heads": 128, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4}
STATE = 8192 * 128 + 3 * (8192 + 2 * 128)


@pytest.mark.parametrize(
    ("more", "attention", "states"),
    [
        ({"layer_types": (["mamba"] * 9 + ["attention"]) * 4}, 4, 36),
        ({"layers_block_type": ["mamba", "hybrid"] * 20}, 20, 40),
        ({"hybrid_override_pattern": "M-M*" * 10}, 10, 20),
        ({"attn_layer_indices": [9, 18, 27]}, 3, 37),
        ({"model_type": "falcon_h1"}, 40, 40),
    ],
)
def test_recurrent_layers_are_told_from_attention_however_it_is_said(
    more: dict[str, Any], attention: int, states: int
) -> None:
    usual: dict[str, Any] = {"model_type": "hybrid", "layers": 40, "heads": 32, "kv_heads": 8, "hidden": 4096}
    shape = config(**usual | MAMBA | more)
    assert sum(layers.count for layers in shape.attention or ()) == attention
    assert (shape.state_layers, shape.state_bytes) == (states, states * STATE * 4)


GEMMA = config("gemma3_text", 62, 32, 16, 5376, head_dim=128, sliding_window=1024)
TOKEN = 2 * 16 * 128 * 2  # bytes per layer


def test_vllm_keeps_a_window_a_step_and_a_page_in_groups_of_equally_many_layers() -> None:
    """10 whole and 52 windowed layers: 1 and 6 groups of 10, the last with 8 layers that don't exist."""
    window = 1023 + 2048 + 1 + 16  # the step before the window has to be whole pages
    assert kept(GEMMA, 8192) == 10 * TOKEN * (8192 + 6 * window)
    assert kept(GEMMA, 2048) == 10 * TOKEN * (2048 + 6 * (2048 + 16)), "no longer than the request"
    assert kept(GEMMA, 8192, batched=8192) == 10 * TOKEN * (8192 + 6 * (8192 + 16)), (
        "a large card's steps are long"
    )


def test_vllm_fills_up_the_smaller_kind_if_there_are_hardly_fewer() -> None:
    shape = ModelShape(GIB, (Layers(12, 8, 64, 64, window=128), Layers(13, 8, 64, 64)))
    assert kept(shape, 1600) == 13 * 2048 * (1600 + 1600 + 16)


def test_vllm_keeps_all_of_chunked_attention() -> None:
    chunked = config("llama4_text", 48, 40, 8, 5120, attention_chunk_size=1024)
    assert kept(chunked, 8192) == kept(replace(chunked, attention=(Layers(48, 8, 128, 128),)), 8192)


def test_a_models_states_and_tokens_share_vllms_pages() -> None:
    """As in Qwen3-Next: 12 whole and 36 linear layers make 4 groups, a page holds one state or as many tokens."""
    shape = ModelShape(GIB, (Layers(12, 2, 256, 256),), state_bytes=36 * MIB, state_layers=36)
    assert kept(shape, 8192) == 12 * MIB * (16 + 3)  # 512 tokens of 2 KiB to a page


def test_engines_that_know_nothing_of_windows_and_latent_vectors_keep_everything() -> None:
    assert kept(GEMMA, 8192, "pytorch") == 62 * TOKEN * 8192
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    deepseek = config("deepseek_v3", 61, 128, 128, 7168, **latent)
    assert kept(deepseek, 16) == 61 * 576 * 2 * 16
    assert kept(deepseek, 16, "pytorch") == 61 * 128 * (192 + 128) * 2 * 16


LLAMA = replace(config("llama", 32, 32, 8, 4096), weight_bytes=16 * GIB, trained_context=8192)
CARD = Device("gpu", 80 * GIB, utilization=0.9)


def need(shape: ModelShape = LLAMA, device: Device = CARD, **more: Any) -> Estimate:
    asked: dict[str, Any] = {"length": 4096, "concurrency": 2, "kv_type": "f16", "engine": "vllm"}
    return estimate(shape, device=device, **asked | more)


def test_llama_cpp_gives_each_gpu_whole_layers_and_divides_no_heads() -> None:
    found = need(engine="llama.cpp", gpus=3)
    assert found.parts
    assert found.verdict is Verdict.FITS
    assert not found.notes
    assert found.parts.kv == 2 * 11 * 4096 * 4096, "11 of 32 layers of 4 KiB a token"
    assert found.parts.base == GIB, "it keeps no graphs of vLLM's size"


@pytest.mark.parametrize(
    ("heads", "kv_heads", "gpus", "works"),
    [(12, 4, 3, False), (24, 6, 4, False), (24, 3, 8, False), (24, 3, 6, True), (24, 8, 4, True)],
)
def test_key_value_heads_must_divide_as_well(heads: int, kv_heads: int, gpus: int, works: bool) -> None:
    found = need(replace(config("llama", 2, heads, kv_heads, 768), weight_bytes=GIB), gpus=gpus)
    assert (found.verdict is Verdict.FITS) is works
    assert any(f"{kv_heads} key-value heads can't be divided" in note for note in found.notes) is not works


def file(*, tied: bool, kind: str = "Q8_0", **entries: int) -> bytes:
    tensors = [("token_embd.weight", (256, 1024), "F16"), ("blk.0.attn_q.weight", (256, 256), kind)]
    tensors += [] if tied else [("output.weight", (256, 1024), "F16")]
    return gguf(entries, tensors)


def facts_of(data: bytes) -> Any:
    return read_facts(lambda offset, size: data[offset : offset + size], len(data))


def test_embeddings_stay_on_the_host_and_tied_ones_go_to_the_gpu_as_well() -> None:
    matrix, embeddings = 256 * 256 // 32 * 34, 256 * 1024 * 2
    for tied in (False, True):
        shape = shape_from_gguf(facts_of(file(tied=tied)))
        found = need(shape, engine="llama.cpp")
        assert found.parts
        assert found.parts.weights == int((matrix + embeddings) * 1.02), tied
        cpu = need(shape, Device("cpu", GIB), engine="llama.cpp")
        assert cpu.parts
        assert cpu.parts.weights == matrix + embeddings * (2 - tied), "a CPU maps each once"


def test_a_split_models_embeddings_may_lie_in_another_part_than_its_output() -> None:
    first = gguf(
        {"split.count": 2}, [("token_embd.weight", (256, 8), "F16"), ("blk.0.ffn_up.weight", (256, 8), "Q4_K")]
    )
    last = gguf({"split.no": 1}, [("output.weight", (256, 8), "F16"), ("blk.1.ffn_up.weight", (256, 8), "Q4_K")])
    shape = shape_from_gguf(merge_shards([facts_of(first), facts_of(last)]))
    assert (shape.host_bytes, shape.copied_bytes) == (4096, 2 * 8 * 144)


def test_weights_rearranged_for_a_cpu_make_it_tight_and_never_refused() -> None:
    """The mapped originals give way, so an 8B model in Q4_K runs where two copies of it would not fit."""
    shape = replace(LLAMA, weight_bytes=5 * GIB, copied_bytes=4 * GIB)
    fits, tight, no = (
        need(shape, Device("cpu", gib * GIB), engine="llama.cpp", concurrency=1) for gib in (12, 8, 5)
    )
    assert (fits.verdict, tight.verdict, no.verdict) == (Verdict.FITS, Verdict.TIGHT, Verdict.DOES_NOT_FIT)
    assert tight.need_bytes is not None
    assert tight.low_bytes is not None
    assert tight.firm_bytes is not None
    assert tight.low_bytes < tight.firm_bytes < tight.available_bytes < tight.need_bytes
    assert any("keeps both" in note for note in tight.notes)
    assert not need(shape, engine="llama.cpp").notes, "a GPU has them once"


def test_what_llama_cpp_may_go_back_to_is_counted_and_bounded() -> None:
    """Windows and states can't be cut short, so it keeps copies of them, in the host's memory."""
    cpu = Device("cpu", 64 * GIB)
    found, plain = need(GEMMA, cpu, engine="llama.cpp"), need(LLAMA, cpu, engine="llama.cpp")
    assert found.parts
    assert plain.parts
    assert found.parts.kv - kept(GEMMA, 4096, "llama.cpp", concurrency=2) == 2 * CHECKPOINTS * 52 * 1024 * TOKEN
    assert plain.parts.kv == kept(LLAMA, 4096, "llama.cpp", concurrency=2)
    on_gpu = need(GEMMA, engine="llama.cpp").parts
    assert on_gpu
    assert on_gpu.kv == kept(GEMMA, 4096, "llama.cpp", concurrency=2)
    config = EngineConfig("llama.cpp", "/opt/model/a.gguf", "demo")
    flags = llamacpp.flags(config, 8000)
    assert flags[flags.index("--ctx-checkpoints") + 1] == str(CHECKPOINTS)
    assert llamacpp.params(config, 8000).n_ctx_checkpoints == CHECKPOINTS


def test_a_correction_holds_for_another_batch_size() -> None:
    """Logits of 64 sequences aren't those of one, whatever one was seen to use."""
    cpu, shape = Device("cpu", 64 * GIB), replace(LLAMA, vocabulary=128_256)

    def overhead(concurrency: int, correction: int | None = None) -> int:
        found = need(shape, cpu, engine="llama.cpp", concurrency=concurrency, correction=correction).parts
        assert found
        return found.activations + found.base

    assert overhead(64, 10 * MIB) == overhead(64) + 10 * MIB
    assert overhead(64, 10 * MIB) - overhead(1, 10 * MIB) == overhead(64) - overhead(1) > 100 * MIB
    assert overhead(1, -64 * GIB) == 0


SHAPES = st.builds(
    ModelShape,
    weight_bytes=st.integers(MIB, 4 * GIB),
    attention=st.lists(
        st.builds(
            Layers,
            count=st.integers(1, 40),
            kv_heads=st.sampled_from([1, 2, 3, 8]),
            key_length=st.sampled_from([64, 128, 192]),
            value_length=st.sampled_from([64, 128]),
            window=st.sampled_from([None, None, 64, 1024, 4096]),
            chunked=st.booleans(),
            latent=st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
    hidden=st.just(2048),
    vocabulary=st.sampled_from([32_000, 256_000]),
    state_bytes=st.sampled_from([0, 0, 3 * MIB + 7]),
    state_layers=st.sampled_from([1, 24]),
    copied_bytes=st.sampled_from([0, 0, MIB]),
)
CPU, GPU = Device("cpu", 6 * GIB), Device("gpu", 8 * GIB)
PLACES = st.sampled_from(
    [("llama.cpp", CPU), ("llama.cpp", GPU), ("vllm", GPU), ("pytorch", CPU), ("pytorch", GPU)]
)
WIDER = ["q8_0", "f16", "f32"]


@settings(max_examples=60, deadline=None)
@given(SHAPES, PLACES, st.integers(1, 9000), st.integers(1, 64), st.integers(1, 2000), st.sampled_from([1, 2, 4]))
def test_more_never_needs_less_and_the_largest_that_fits_is_the_largest(
    shape: ModelShape, place: tuple[str, Device], length: int, concurrency: int, more: int, gpus: int
) -> None:
    engine, device = place
    asked: dict[str, Any] = {"kv_type": "f16", "engine": engine, "device": device}
    asked |= {"gpus": gpus if engine != "pytorch" and device.kind == "gpu" else 1}

    def firm(length: int, concurrency: int, **other: Any) -> int:
        found = estimate(shape, length=length, concurrency=concurrency, **asked | other).firm_bytes
        assert found is not None
        return found

    assert firm(length, concurrency) <= firm(length + more, concurrency)
    assert firm(length, concurrency) <= firm(length, concurrency + more)
    widths = [firm(length, concurrency, kv_type=kv_type) for kv_type in WIDER]
    assert widths == sorted(widths)
    found, room = estimate(shape, length=length, concurrency=concurrency, **asked), device.available_bytes
    assert found.largest_length is not None
    assert found.largest_concurrency is not None
    if found.largest_length:
        assert firm(found.largest_length, concurrency) <= room
    if found.largest_length < 1 << 20:
        assert firm(found.largest_length + 1, concurrency) > room
    if found.largest_concurrency:
        assert firm(length, found.largest_concurrency) <= room
    if found.largest_concurrency < 1024:
        assert firm(length, found.largest_concurrency + 1) > room
