"""A model file says what it is, and a file that isn't one is refused with a reason."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoints.gguf import GGUFFacts, NotGGUF, merge_shards, read_facts
from tests.model_files import gguf, smollm2, text


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


def facts_of(data: bytes) -> GGUFFacts:
    return read_facts(reader(data), len(data))


def header(*, tensors: int = 0, entries: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body


def refusal(data: bytes, size: int | None = None) -> str:
    with pytest.raises(NotGGUF) as caught:
        read_facts(reader(data), len(data) if size is None else size)
    return str(caught.value)


@pytest.fixture(scope="module")
def real() -> GGUFFacts:
    path = smollm2()
    with path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return read_facts(read, path.stat().st_size)


def test_a_real_model_says_what_it_is(real: GGUFFacts) -> None:
    assert real.architecture == "llama"
    assert real.quantization == "Q4_1"
    assert real.parameter_count == 134_515_008
    assert real.context_length == 8192
    assert (real.block_count, real.embedding_length) == (30, 576)
    assert (real.head_count, real.head_count_kv) == ((9,), (3,))
    assert real.license == "apache-2.0"


def test_a_real_models_tensors_and_header_add_up_to_its_size(real: GGUFFacts) -> None:
    assert real.file_size == smollm2().stat().st_size
    assert set(real.tensor_bytes) == {"Q8_0", "Q4_1", "F32"}
    assert 0 <= real.file_size - real.weight_bytes < 2_000_000


def test_a_real_models_tokenizer_is_known(real: GGUFFacts) -> None:
    assert (real.tokenizer_model, real.tokenizer_pre, real.vocab_size) == ("gpt2", "smollm", 49_152)
    assert (real.bos_token_id, real.eos_token_id, real.padding_token_id) == (1, 2, 2)
    assert real.has_chat_template


def test_facts_survive_a_json_column(real: GGUFFacts) -> None:
    assert GGUFFacts.from_dict(json.loads(json.dumps(real.to_dict()))) == real


def test_facts_written_by_another_version_still_load(real: GGUFFacts) -> None:
    assert GGUFFacts.from_dict(real.to_dict() | {"from_the_future": 1}) == real


def test_the_header_of_a_large_file_is_read_without_the_rest() -> None:
    data = gguf()
    asked: list[tuple[int, int]] = []

    def read(offset: int, size: int) -> bytes:
        asked.append((offset, size))
        return data[offset : offset + size]

    read_facts(read, None)
    assert sum(size for _, size in asked) <= 2 << 20


def test_kv_heads_may_differ_by_layer() -> None:
    facts = facts_of(gguf({"llama.attention.head_count_kv": [2, 0]}))
    assert facts.head_count_kv == (2, 0)


def test_a_models_windows_and_state_space_layers_are_read() -> None:
    facts = facts_of(
        gguf(
            {
                "llama.attention.sliding_window": 512,
                "llama.attention.sliding_window_pattern": [True, False],
                "llama.attention.key_length": 128,
                "llama.attention.value_length": 96,
                "llama.ssm.state_size": 16,
                "llama.attention.causal": False,
            }
        )
    )
    assert (facts.sliding_window, facts.sliding_window_pattern) == (512, (1, 0))
    assert (facts.key_length, facts.value_length) == (128, 96)
    assert facts.ssm == {"state_size": 16}
    assert not facts.causal


def test_version_2_files_are_read_too() -> None:
    assert facts_of(gguf(version=2)).version == 2


def test_quantization_names_the_mix_people_know_it_by() -> None:
    tensors = [("token_embd.weight", (256, 9), "Q6_K"), ("blk.0.attn_q.weight", (256, 4), "Q4_K")]
    assert facts_of(gguf({"general.file_type": 15}, tensors)).quantization == "Q4_K_M"


def test_a_file_type_at_odds_with_the_tensors_is_not_believed() -> None:
    tensors = [("blk.0.attn_q.weight", (256, 4), "Q8_0")]
    assert facts_of(gguf({"general.file_type": 15}, tensors)).quantization == "Q8_0"


def test_a_large_vocabulary_does_not_hide_the_quantization_of_the_weights() -> None:
    tensors = [("token_embd.weight", (64, 9000), "Q8_0"), ("blk.0.ffn_up.weight", (64, 64), "Q4_0")]
    assert facts_of(gguf(None, tensors)).quantization == "Q4_0"


def test_parameters_count_every_tensor() -> None:
    assert facts_of(gguf()).parameter_count == 64 * 3 + 64 * 64 + 64


def test_a_split_model_is_one_model() -> None:
    first = facts_of(gguf({"split.no": 0, "split.count": 2}, [("blk.0.attn_q.weight", (64, 2), "F16")]))
    later_tensors = [("blk.1.attn_q.weight", (64, 8), "Q8_0")]
    later = facts_of(gguf({"split.no": 1}, later_tensors, without=["general.architecture"]))
    whole = merge_shards([first, later])
    assert whole.architecture == "llama"
    assert whole.parameter_count == 64 * 2 + 64 * 8
    assert whole.tensor_bytes == {"F16": 256, "Q8_0": 544}
    assert whole.file_size == (first.file_size or 0) + (later.file_size or 0)


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 and more", "PyTorch checkpoint"),
        (b"\x80\x02}q\x00....", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"<html><body>login", "web page"),
        (struct.pack("<Q", 3000) + b'{"__metadata__"', "safetensors"),
        (b"tjgg\x03\0\0\0", "GGJT"),
        (b"hello, world", "b'hell'"),
    ],
)
def test_what_is_not_gguf_is_called_by_its_name(start: bytes, named: str) -> None:
    said = refusal(start)
    assert named in said
    assert "GGUF" in said


@pytest.mark.parametrize(("version", "named"), [(1, "version 1"), (4, "version 4"), (0x0300_0000, "big-endian")])
def test_versions_that_cannot_be_read_are_said_so(version: int, named: str) -> None:
    assert named in refusal(header(version=version))


def test_a_download_that_stopped_early_is_found_out() -> None:
    data = gguf()
    assert "cut off" in refusal(data[:-4096])
    assert "cut off" in refusal(data[:100])
    assert "cut off" in refusal(data[:10])


def test_a_model_of_no_architecture_cannot_run() -> None:
    assert "general.architecture" in refusal(gguf(without=["general.architecture"]))


HOSTILE = {
    "tensors": header(tensors=1 << 60),
    "metadata entries": header(entries=1 << 60),
    "bytes for a key": header(entries=1, body=struct.pack("<Q", 1 << 62)),
    "bytes for the text": header(entries=1, body=text("k") + struct.pack("<IQ", 8, 1 << 62)),
    "elements in k": header(entries=1, body=text("k") + struct.pack("<IIQ", 9, 4, 1 << 62)),
    "array of type 9": header(entries=1, body=text("k") + struct.pack("<IIQ", 9, 9, 1)),
    "unknown type 77": header(entries=1, body=text("k") + struct.pack("<I", 77)),
    "dimensions": header(tensors=1, body=text("t") + struct.pack("<I", 1 << 31)),
    "claims": header(tensors=1, body=text("t") + struct.pack("<I4QIQ", 4, *[1 << 60] * 4, 0, 0)),
    "format 999": header(tensors=1, body=text("t") + struct.pack("<IQIQ", 1, 8, 999, 0)),
    "blocks": header(tensors=1, body=text("t") + struct.pack("<IQIQ", 1, 33, 3, 0)),
}


@pytest.mark.parametrize("named", HOSTILE)
def test_a_hostile_header_is_refused_before_memory_is_spent(named: str) -> None:
    largest = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal largest
        largest = max(largest, size)
        return HOSTILE[named][offset : offset + size]

    with pytest.raises(NotGGUF, match=named):
        read_facts(read, None)
    assert largest <= 1 << 20


def test_an_endless_header_is_refused() -> None:
    long_array = text("k") + struct.pack("<IIQ", 9, 10, 4_000_000)
    stride = len(long_array) + 8 * 4_000_000

    def read(offset: int, size: int) -> bytes:
        start = header(entries=60_000)
        return (start + long_array if offset < len(start) else long_array) + b"\0" * 100

    with pytest.raises(NotGGUF, match="larger than 128 MiB"):
        read_facts(read, 60_000 * stride)


def test_a_tensor_far_outside_the_file_is_refused() -> None:
    entries = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    body = entries + text("t") + struct.pack("<IQIQ", 1, 8, 0, 1 << 63)
    assert "cut off" in refusal(header(tensors=1, entries=1, body=body))


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail_in_another_way(noise: bytes) -> None:
    data = b"GGUF\x03\0\0\0" + noise
    try:
        facts_of(data)
    except NotGGUF as refused:
        assert str(refused).endswith(".")  # noqa: PT017 - most noise is refused, and any answer is fine


@given(st.integers(0, 700), st.binary(min_size=1, max_size=8))
@settings(max_examples=300)
def test_no_damage_to_a_real_header_makes_it_fail_in_another_way(at: int, damage: bytes) -> None:
    data = bytearray(gguf())
    data[at : at + len(damage)] = damage
    try:
        facts = facts_of(bytes(data))
    except NotGGUF:
        return
    assert json.dumps(facts.to_dict())


def test_a_file_on_disk_reads_like_bytes(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf())
    with path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        assert read_facts(read, path.stat().st_size) == facts_of(gguf())
