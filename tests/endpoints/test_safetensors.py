"""What a folder of safetensors weighs, from its headers alone, and what a machine makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from endpoints.fitting import Unfit, fit, need_of
from endpoints.models import InstanceType
from endpoints.safetensors import NotSafetensors, Weights, weights_of
from endpoints.sources import Found
from endpoints.spec import GIB, LlmSpec, SourceSpec, Spec

LLAMA_3_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}


def file(tensors: Mapping[str, tuple[str, list[int], int]]) -> bytes:
    """A safetensors file of these tensors: name -> dtype, shape, bytes; the numbers are left out."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def folder(
    files: Mapping[str, bytes], sizes: Mapping[str, int]
) -> tuple[dict[str, int], Callable[..., bytes], list[str]]:
    """Sizes, a reader, and what it was asked for."""
    asked: list[str] = []

    def read(path: str, offset: int, size: int) -> bytes:
        asked.append(path)
        return files[path][offset : offset + size]

    return {path: sizes.get(path, len(data)) for path, data in files.items()}, read, asked


def test_shards_add_up_without_being_fetched() -> None:
    one, two = file({"a": ("BF16", [1000, 4], 8000)}), file({"b": ("BF16", [500], 1000), "c": ("F32", [10], 40)})
    sizes = {"model-1.safetensors": len(one) + 8000, "model-2.safetensors": len(two) + 1040}
    known, read, asked = folder(
        {
            "model-1.safetensors": one,
            "model-2.safetensors": two,
            "config.json": json.dumps(LLAMA_3_8B).encode(),
            "original/copy.safetensors": b"never read",
        },
        sizes,
    )
    weights = weights_of(known, read)
    assert weights is not None
    assert weights.bytes == 9040
    assert weights.parameters == 4510
    assert weights.dtype == "bfloat16"
    assert weights.config["num_key_value_heads"] == 8
    assert "original/copy.safetensors" not in asked, "a copy in a folder would count twice"
    assert Weights.from_dict(json.loads(json.dumps(weights.to_dict()))) == weights


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\xff" * 64,
        b"\x08\x00\x00\x00\x00\x00\x00\x00not json",
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
    ],
)
def test_what_only_has_the_name_is_refused_by_name(content: bytes) -> None:
    known, read, _ = folder({"model.safetensors": content}, {})
    with pytest.raises(NotSafetensors, match=r"model\.safetensors is no safetensors file"):
        weights_of(known, read)


def test_a_file_that_was_cut_off_is_noticed() -> None:
    content = file({"a": ("F16", [1000], 2000)})
    known, read, _ = folder({"model.safetensors": content}, {"model.safetensors": len(content) + 1999})
    with pytest.raises(NotSafetensors, match="cut off"):
        weights_of(known, read)


def test_nothing_known_is_none_and_a_config_alone_is_no_size() -> None:
    known, read, _ = folder({"model.py": b"class Model: ..."}, {})
    assert weights_of(known, read) is None
    known, read, _ = folder({"config.json": b'{"model_type": "llama"}'}, {})
    weights = weights_of(known, read)
    assert weights is not None
    assert weights.bytes is None
    known, read, _ = folder({"config.json": b'{"threshold": 0.5}'}, {})
    assert weights_of(known, read) is None, "a config of something else describes no model"


def test_pickled_weights_are_as_large_as_their_files() -> None:
    described = LLAMA_3_8B | {"torch_dtype": "float16"}
    files = {"config.json": json.dumps(described).encode()} | dict.fromkeys(("pytorch_model-1-of-2.bin",), b"")
    files |= {"pytorch_model-2-of-2.bin": b"", "training_args.bin": b"", "pytorch_model.bin.index.json": b"{}"}
    known, read, asked = folder(files, {name: 8 * 10**9 for name in files if name.endswith(".bin")})
    weights = weights_of(known, read)
    assert weights is not None
    assert (weights.bytes, weights.parameters, weights.dtype) == (16 * 10**9, 8 * 10**9, "float16")
    assert asked == ["config.json"], "a pickle is never opened to look"
    found = Found("0" * 40, (), (), "", None, weights=weights)
    need = need_of("pytorch", LlmSpec(data_type="float32"), found, card("NVIDIA H100", 80))
    assert need is not None
    assert need.parts is not None
    assert need.parts.weights == int(32 * 10**9 * 1.02)


def card(gpu: str, memory: int, count: int = 1) -> InstanceType:
    return InstanceType(
        slug="g", vcpus=4, memory_bytes=16 * GIB, gpu=gpu, gpu_count=count, gpu_memory_bytes=memory * GIB
    )


def llama(dtype: str = "F32", size: int = 32) -> Found:
    weights = Weights(size * 10**9, 8 * 10**9, {dtype: size * 10**9}, LLAMA_3_8B)
    return Found("0" * 40, (), (), "", None, weights=weights)


def test_vllm_needs_what_the_tensors_take_once_they_are_loaded() -> None:
    """16 GB of float16 from 32 GB of float32, and 128 KiB of cache a token: MEMORY's figures for this shape."""
    llm = LlmSpec(max_sequence_length=8192, batch_size=1, data_type="float16")
    need = need_of("vllm", llm, llama(), card("NVIDIA A100", 40))
    assert need is not None
    assert need.parts is not None
    assert need.parts.weights == int(16 * 10**9 * 1.02)
    assert need.parts.kv == 128 * 1024 * 8192
    assert need.verdict == "fits"
    same = need_of("vllm", llm, llama("BF16", 16), card("NVIDIA A100", 40))
    assert same is not None
    assert same.parts == need.parts
    int8 = need_of("vllm", LlmSpec(data_type="int8"), llama(), card("NVIDIA A100", 40))
    assert int8 is not None
    assert int8.parts is not None
    assert int8.parts.weights == int(32 * 10**9 * 1.02), "nothing says that the weights get smaller"


@pytest.mark.parametrize(
    ("engine", "llm", "gigabytes", "kib"),
    [
        ("pytorch", {"data_type": "float32"}, 32, 256),  # stored in half of that
        ("pytorch", {"data_type": "float16"}, 16, 128),
        ("pytorch", {"data_type": "float16", "quantization": "dynamic"}, 32, 256),  # what torch quantizes from
        ("vllm", {"data_type": "float32"}, 32, 256),
        ("vllm", {"data_type": "float16", "quantization": "static"}, 16, 128),
        ("vllm", {"data_type": "int8"}, 16, 64),  # its cache is fp8
        ("python", {"data_type": "float32"}, 16, 256),  # loaded as its own code does
    ],
)
def test_weights_and_cache_are_of_the_type_that_the_engine_loads(
    engine: str, llm: dict[str, Any], gigabytes: int, kib: int
) -> None:
    need = need_of(engine, LlmSpec(max_sequence_length=1024, **llm), llama("BF16", 16), card("NVIDIA H100", 80))
    assert need is not None
    assert need.parts is not None
    assert need.parts.weights == int(gigabytes * 10**9 * 1.02)
    assert need.parts.kv == 1024 * kib * 1024


def test_only_engines_that_spread_over_cards_are_given_several() -> None:
    llm = LlmSpec(data_type="float16")
    one, four = (need_of("pytorch", llm, llama("F16", 16), card("NVIDIA T4", 16, count)) for count in (1, 4))
    assert one is not None
    assert four is not None
    assert (one.parts, one.verdict) == (four.parts, "does_not_fit")


def test_two_cards_share_the_weights() -> None:
    llm = LlmSpec(data_type="float16")
    one, two = (need_of("vllm", llm, llama(), card("NVIDIA T4", 16, count)) for count in (1, 2))
    assert one is not None
    assert two is not None
    assert (one.verdict, two.verdict) == ("does_not_fit", "fits")


def test_a_model_that_does_not_fit_says_what_would() -> None:
    llm = LlmSpec(data_type="float16", max_sequence_length=8192)
    spec = Spec(name="n", region="l", instance_type="g", source=SourceSpec(), framework="vllm", llm=llm)
    need = need_of("vllm", llm, llama("F16", 16), card("NVIDIA A100", 20))
    assert need is not None
    with pytest.raises(Unfit, match=f"What fits is {need.largest_length:,} tokens"):
        fit(spec, llama("F16", 16), card("NVIDIA A100", 20))
    with pytest.raises(Unfit, match=r"has 10\.80 GiB\. Choose a larger machine\.$"):
        fit(spec, llama("F16", 16), card("NVIDIA A100", 12))
    with pytest.raises(Unfit, match=r"32 attention heads can't be divided among 3 GPUs\. Choose a machine with"):
        fit(spec, llama("F16", 16), card("NVIDIA A100", 40, 3))


def test_a_card_without_bfloat16_refuses_it_in_words() -> None:
    spec = Spec(
        name="n",
        region="local",
        instance_type="g",
        source=SourceSpec(),
        framework="vllm",
        llm=LlmSpec(data_type="bfloat16"),
    )
    with pytest.raises(Unfit, match=r"T4 can't compute in bfloat16.*Choose float16"):
        fit(spec, llama("BF16", 2), card("NVIDIA T4", 16))


def test_unknown_weights_are_an_unknown_need_not_a_guess() -> None:
    spec = Spec(name="n", region="local", instance_type="c", source=SourceSpec(), framework="python")
    machine = InstanceType(slug="c", vcpus=2, memory_bytes=4 * GIB)
    assert "memory need not known" in fit(spec, Found("1", (), (), "", None), machine)


def test_a_persons_own_figure_decides_in_place_of_the_estimate() -> None:
    def spec(gib: float) -> Spec:
        llm = LlmSpec(data_type="float16")
        source = SourceSpec()
        return Spec(
            name="n", region="l", instance_type="g", source=source, framework="vllm", llm=llm, memory_gib=gib
        )

    small = card("NVIDIA T4", 16)
    with pytest.raises(Unfit, match="It needs"):
        fit(spec(0), llama("F16", 16), small)
    assert "by your own figure: needs 12.00 GiB" in fit(spec(12), llama("F16", 16), small)
    with pytest.raises(Unfit, match=r"It needs 15\.00 GiB"):
        fit(spec(15), llama("F16", 1), small)
