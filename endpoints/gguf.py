"""Read what a GGUF model file says about itself, from its header alone.

The file is somebody else's: every count, length and type is checked before it is believed, and no more
is read or kept than the facts need. Format: the GGUF specification of ggml, versions 2 and 3.
"""

import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from endpoints.ggml import FILE_TYPES, REPACKED, TENSOR_TYPES

Read = Callable[[int, int], bytes]
"""`read(offset, size)` answers the file's bytes there; fewer only at the end of the file."""

Value = int | float | bool | str | tuple[int | float | bool, ...] | None

CHUNK: Final = 1 << 20
MAX_HEADER: Final = 128 << 20
MAX_ENTRIES: Final = 65_536
MAX_TENSORS: Final = 131_072
MAX_KEY: Final = 4_096
MAX_STRING: Final = 8 << 20
MAX_ARRAY: Final = 4_194_304
KEPT_ARRAY: Final = 4_096
MAX_ELEMENTS: Final = 1 << 48
MAX_ALIGNMENT: Final = 1 << 20

STRING, ARRAY = 8, 9
SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
LOOKED_UP: Final = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})  # stay on the host
OUTPUT: Final = "output.weight"
EMBEDDINGS: Final = frozenset({"token_embd.weight", OUTPUT})


class NotGGUF(ValueError):
    """This is no GGUF file that can be used; the message says what was found and what to do."""


@dataclass(frozen=True)
class GGUFFacts:
    """What the header says. Sizes in bytes; None where the file doesn't say.

    `tensor_bytes` sums tensors by storage format; `quantization` names the format of the weights proper
    (matrices other than the vocabulary's), which is what people mean by a "Q4_1 model".
    `head_count` and `head_count_kv` have one number per layer, or one for all. Without `output_bytes` the
    embeddings are tied: the output layer uses them too. `repacked_bytes`: matrices in ggml's REPACKED formats.
    """

    version: int
    architecture: str
    name: str
    file_size: int | None
    parameter_count: int
    tensor_bytes: dict[str, int]
    quantization: str
    file_type: int | None = None
    license: str = ""
    context_length: int | None = None
    block_count: int | None = None
    embedding_length: int | None = None
    feed_forward_length: int | None = None
    head_count: tuple[int, ...] = ()
    head_count_kv: tuple[int, ...] = ()
    key_length: int | None = None
    value_length: int | None = None
    sliding_window: int | None = None
    sliding_window_pattern: tuple[int, ...] = ()
    kv_lora_rank: int | None = None
    key_length_mla: int | None = None
    rope_dimension_count: int | None = None
    full_attention_interval: int | None = None
    causal: bool = True
    expert_count: int | None = None
    ssm: dict[str, int] = field(default_factory=dict)
    tokenizer_model: str = ""
    tokenizer_pre: str = ""
    vocab_size: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    padding_token_id: int | None = None
    has_chat_template: bool = False
    split_count: int = 1
    embedding_bytes: int = 0
    output_bytes: int = 0
    repacked_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        return sum(self.tensor_bytes.values())

    def to_dict(self) -> dict[str, Any]:
        """For a JSON column."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "GGUFFacts":
        """The way back; keys an older or newer version wrote are left out."""
        names = {item.name for item in fields(cls)}
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in names
        }
        return cls(**known)


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    type: str
    size: int
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Cursor:
    """Walks the header in bounded chunks; skipping costs no read."""

    def __init__(self, read: Read, size: int | None) -> None:
        self._read, self._size = read, size
        self._chunk, self._start, self.at = b"", 0, 0

    def take(self, size: int) -> bytes:
        begin = self.at - self._start
        if begin < 0 or begin + size > len(self._chunk):
            self._start, begin = self.at, 0
            self._chunk = self._read(self.at, self._bounded(max(size, CHUNK)))
        piece = self._chunk[begin : begin + size]
        if len(piece) < size:
            raise NotGGUF(
                f"The file ends inside its header, at byte {self.at + len(piece):,}: cut off. Fetch it again."
            )
        self.skip(size)
        return piece

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end of the file, without moving on."""
        self._start, self._chunk = self.at, self._read(self.at, self._bounded(max(size, CHUNK)))
        return self._chunk[:size]

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > MAX_HEADER:
            raise NotGGUF(f"The header is larger than {MAX_HEADER >> 20} MiB, which no real model's is. Refused.")

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, limit: int, what: str) -> int:
        found = int(self.number("Q"))
        if found > limit:
            raise NotGGUF(
                f"The header claims {found:,} {what}; more than {limit:,} is refused. The file is damaged."
            )
        return found

    def text(self, limit: int, what: str) -> str:
        return self.take(self.count(limit, f"bytes for {what}")).decode("utf-8", errors="replace")

    def _bounded(self, size: int) -> int:
        return size if self._size is None else max(0, min(size, self._size - self.at))


def read_facts(read: Read, size: int | None = None) -> GGUFFacts:
    """The facts in the header that `read` gives access to; `size` is the whole file's, where known.

    With `size`, a file cut off behind its header is found out too. NotGGUF for everything unusable.
    A later shard of a split model has tensors but no metadata: join it with `merge_shards`.
    """
    cursor = Cursor(read, size)
    version = _version(cursor)
    tensor_count = cursor.count(MAX_TENSORS, "tensors")
    entry_count = cursor.count(MAX_ENTRIES, "metadata entries")
    metadata: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(entry_count):
        key = cursor.text(MAX_KEY, "a key")
        metadata[key], lengths[key] = _value(cursor, cursor.number("I"), key)
    tensors = [_tensor(cursor) for _ in range(tensor_count)]
    _check_length(cursor.at, tensors, metadata, size)
    return _facts(version, metadata, lengths, tensors, size)


def merge_shards(shards: Sequence[GGUFFacts]) -> GGUFFacts:
    """One model's facts out of its shards' (first one first): metadata of the first, tensors of all."""
    first = shards[0]
    tensor_bytes: Counter[str] = Counter()
    for shard in shards:
        tensor_bytes.update(shard.tensor_bytes)
    weighty = max(shards, key=lambda shard: shard.weight_bytes)
    sizes = [shard.file_size for shard in shards]
    return replace(
        first,
        tensor_bytes=dict(tensor_bytes),
        parameter_count=sum(shard.parameter_count for shard in shards),
        quantization=_mix(weighty.quantization, first.file_type),
        embedding_bytes=sum(shard.embedding_bytes for shard in shards),
        output_bytes=sum(shard.output_bytes for shard in shards),
        repacked_bytes=sum(shard.repacked_bytes for shard in shards),
        file_size=None if None in sizes else sum(size for size in sizes if size is not None),
    )


def _version(cursor: Cursor) -> int:
    start = cursor.peek(8)
    if start[:4] != b"GGUF":
        raise NotGGUF(f"{_describe(start)}, not a GGUF model. llama.cpp needs a file in GGUF format.")
    version = int.from_bytes(start[4:8], "little")
    if version in (2, 3):
        cursor.skip(8)
        return version
    if version & 0xFFFF == 0:
        raise NotGGUF("The file is GGUF for big-endian machines. Fetch or convert a little-endian one.")
    if version == 1:
        raise NotGGUF("The file is GGUF version 1, which llama.cpp no longer reads. Convert the model again.")
    raise NotGGUF(f"The file is GGUF version {version}; versions 2 and 3 are known here.")


def _describe(start: bytes) -> str:
    if not start:
        return "The file is empty"
    known = {
        b"PK\x03\x04": "This is a zip archive, such as a PyTorch checkpoint",
        b"vers": "This is a Git LFS pointer instead of the file it points to",
        b"<!do": "This is a web page",
        b"<htm": "This is a web page",
        b"lmgg": "This is a model in GGML format, the one before GGUF",
        b"tjgg": "This is a model in GGJT format, the one before GGUF",
        b"fmgg": "This is a model in GGMF format, the one before GGUF",
    }
    for magic, name in known.items():
        if start[:4].lower() == magic.lower():
            return name
    if start[:1] == b"\x80":
        return "This is a Python pickle, such as an old PyTorch checkpoint"
    if start[4:8] == b"\0\0\0\0" and start[:4] != b"\0\0\0\0":
        return "This looks like a safetensors file"
    return f"The file starts with {start[:4]!r} instead of b'GGUF'"


def _value(cursor: Cursor, kind: int, key: str) -> tuple[Value, int]:
    """The value and its length (of an array). Long arrays and arrays of strings are walked, not kept."""
    if kind in SCALARS:
        return cursor.number(SCALARS[kind]), 1
    if kind == STRING:
        return cursor.text(MAX_STRING, f"the text of {key[:80]}"), 1
    if kind != ARRAY:
        raise NotGGUF(f"Metadata entry {key[:80]!r} has the unknown type {kind}. The file is damaged.")
    inner = cursor.number("I")
    length = cursor.count(MAX_ARRAY, f"elements in {key[:80]}")
    if inner in SCALARS:
        return _numbers(cursor, SCALARS[inner], length), length
    if inner == STRING:
        for _ in range(length):
            cursor.skip(cursor.count(MAX_STRING, f"bytes in {key[:80]}"))
        return None, length
    raise NotGGUF(f"Metadata entry {key[:80]!r} is an array of type {inner}; llama.cpp reads no such arrays.")


def _numbers(cursor: Cursor, code: str, length: int) -> Value:
    size = struct.calcsize("<" + code) * length
    if length > KEPT_ARRAY:
        cursor.skip(size)
        return None
    return struct.unpack(f"<{length}{code}", cursor.take(size))


def _tensor(cursor: Cursor) -> Tensor:
    name = cursor.text(MAX_KEY, "a tensor's name")
    dimensions = cursor.number("I")
    if dimensions > 4:
        raise NotGGUF(f"Tensor {name[:80]!r} has {dimensions} dimensions; 4 is the most. The file is damaged.")
    shape = tuple(int(cursor.number("Q")) for _ in range(dimensions))
    kind, offset = cursor.number("I"), int(cursor.number("Q"))
    elements = math.prod(shape)
    if elements > MAX_ELEMENTS:
        raise NotGGUF(f"Tensor {name[:80]!r} claims {elements:,} values. The file is damaged.")
    block = TENSOR_TYPES.get(kind)
    if block is None:
        raise NotGGUF(
            f"Tensor {name[:80]!r} is stored in format {kind}, unknown here. Choose another quantization."
        )
    if shape and shape[0] % block.elements:
        raise NotGGUF(f"Tensor {name[:80]!r}: rows of {shape[0]} don't divide into {block.name} blocks. Damaged.")
    return Tensor(name, shape, block.name, block.bytes_for(elements), offset)


def _check_length(header: int, tensors: Sequence[Tensor], metadata: Mapping[str, Value], size: int | None) -> None:
    alignment = _integer(metadata, "general.alignment") or 32
    if not 0 < alignment <= MAX_ALIGNMENT:
        raise NotGGUF(f"The header claims an alignment of {alignment}. The file is damaged.")
    start = -(-header // alignment) * alignment
    end = start + max((tensor.offset + tensor.size for tensor in tensors), default=0)
    if size is not None and end > size:
        raise NotGGUF(
            f"The file is cut off: its tensors end at byte {end:,}, the file at {size:,}. Fetch it again."
        )


def _facts(
    version: int,
    metadata: Mapping[str, Value],
    lengths: Mapping[str, int],
    tensors: Sequence[Tensor],
    size: int | None,
) -> GGUFFacts:
    architecture = _text(metadata, "general.architecture")
    later_shard = bool(_integer(metadata, "split.no"))
    if not architecture and not later_shard:
        raise NotGGUF("The header names no architecture (general.architecture), so nothing can run it.")
    sums: Counter[str] = Counter()
    for tensor in tensors:
        sums[tensor.type] += tensor.size
    vocabulary = lengths.get("tokenizer.ggml.tokens") or _integer(metadata, f"{architecture}.vocab_size")
    file_type = _integer(metadata, "general.file_type")
    return GGUFFacts(
        version=version,
        architecture=architecture,
        name=_text(metadata, "general.name"),
        license=_text(metadata, "general.license"),
        file_size=size,
        parameter_count=sum(tensor.elements for tensor in tensors),
        tensor_bytes=dict(sums),
        quantization=_mix(_dominant(tensors), file_type),
        file_type=file_type,
        tokenizer_model=_text(metadata, "tokenizer.ggml.model"),
        tokenizer_pre=_text(metadata, "tokenizer.ggml.pre"),
        vocab_size=vocabulary,
        bos_token_id=_integer(metadata, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_integer(metadata, "tokenizer.ggml.eos_token_id"),
        padding_token_id=_integer(metadata, "tokenizer.ggml.padding_token_id"),
        has_chat_template=bool(_text(metadata, "tokenizer.chat_template")),
        split_count=_integer(metadata, "split.count") or 1,
        embedding_bytes=sum(tensor.size for tensor in tensors if tensor.name in LOOKED_UP),
        output_bytes=sum(tensor.size for tensor in tensors if tensor.name == OUTPUT),
        repacked_bytes=sum(
            tensor.size
            for tensor in tensors
            if tensor.type in REPACKED and len(tensor.shape) > 1 and tensor.name not in LOOKED_UP
        ),
        **_architecture(metadata, architecture),
    )


def _architecture(metadata: Mapping[str, Value], name: str) -> dict[str, Any]:
    """The entries that the architecture's name prefixes."""
    whole = ("context_length", "block_count", "embedding_length", "feed_forward_length", "expert_count")
    attention = ("key_length", "value_length", "sliding_window", "kv_lora_rank", "key_length_mla")
    found: dict[str, Any] = {key: _integer(metadata, f"{name}.{key}") for key in whole}
    found |= {key: _integer(metadata, f"{name}.attention.{key}") for key in attention}
    found |= {
        "head_count": _integers(metadata, f"{name}.attention.head_count"),
        "head_count_kv": _integers(metadata, f"{name}.attention.head_count_kv"),
        "sliding_window_pattern": _integers(metadata, f"{name}.attention.sliding_window_pattern"),
        "rope_dimension_count": _integer(metadata, f"{name}.rope.dimension_count"),
        "full_attention_interval": _integer(metadata, f"{name}.full_attention_interval"),
        "causal": metadata.get(f"{name}.attention.causal") is not False,
        "ssm": {
            key.rpartition(".")[2]: value
            for key, value in metadata.items()
            if key.startswith(f"{name}.ssm.") and isinstance(value, int)
        },
    }
    return found


def _dominant(tensors: Sequence[Tensor]) -> str:
    weights = [item for item in tensors if len(item.shape) > 1 and item.name not in EMBEDDINGS]
    elements: Counter[str] = Counter()
    for tensor in weights or tensors:
        elements[tensor.type] += tensor.elements
    return elements.most_common(1)[0][0] if elements else ""


def _mix(dominant: str, file_type: int | None) -> str:
    """`Q4_K` and the file type of Q4_K_M make Q4_K_M; a file type at odds with the tensors isn't believed."""
    said = FILE_TYPES.get(file_type, "") if file_type is not None else ""
    return said if dominant and said.startswith(dominant) else dominant


def _text(metadata: Mapping[str, Value], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""


def _integer(metadata: Mapping[str, Value], key: str) -> int | None:
    value = metadata.get(key)
    if isinstance(value, tuple):
        value = max(value, default=None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _integers(metadata: Mapping[str, Value], key: str) -> tuple[int, ...]:
    value = metadata.get(key)
    if isinstance(value, int):
        return (int(value),)
    return tuple(int(item) for item in value) if isinstance(value, tuple) else ()
