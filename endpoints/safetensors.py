"""What a folder of safetensors weighs and is shaped like, read from its headers and its config.json, not fetched.

A safetensors file begins with 8 bytes, little-endian: the length of a JSON header with every tensor's dtype, shape
and place (huggingface.co/docs/safetensors/metadata_parsing).
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

Read = Callable[[str, int, int], bytes]
LONGEST_HEADER: Final = 100 * 1024**2  # what the format itself allows
LONGEST_CONFIG: Final = 1024**2
PICKLED: Final = re.compile(r"(weights/)?pytorch_model[^/]*\.bin")
NAMES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "int8"}
WIDTHS: Final = {"F32": 4, "F16": 2, "BF16": 2}
TELLING: Final = frozenset({"model_type", "hidden_size", "architectures", "text_config"})


class NotSafetensors(ValueError):
    """The file has the name and not the content; the text says what is wrong with it."""


@dataclass(frozen=True)
class Weights:
    """Bytes and elements of all tensors, bytes by their dtype, and the config; `bytes` is None where unknown."""

    bytes: int | None
    parameters: int | None
    dtypes: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON column."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Weights":
        return cls(**stored)

    @property
    def dtype(self) -> str:
        """What most of it is stored as, in the words of the LLM settings; "" where unknown."""
        most = max(self.dtypes, key=lambda name: self.dtypes[name], default="")
        return NAMES.get(most, most.lower())


def weights_of(sizes: Mapping[str, int], read: Read) -> Weights | None:
    """Of files by path and size. None without config.json and safetensors: nothing is known then.

    `read(path, offset, size)` answers a piece of a file. Raises NotSafetensors.
    """
    config = _config(sizes, read)
    tensors = [path for path in sizes if path.endswith(".safetensors")]
    tensors = [
        path for path in tensors if "/" not in path
    ] or tensors  # copies in folders beside those of the root
    if not tensors:
        return _pickled(sizes, config) if config else None
    size: Counter[str] = Counter()
    elements = 0
    for path in tensors:
        for tensor in _tensors(path, sizes[path], read):
            start, end = tensor["data_offsets"]
            size[str(tensor["dtype"])] += end - start
            elements += math.prod(tensor["shape"])
    return Weights(sum(size.values()), elements, dict(size), config)


def _pickled(sizes: Mapping[str, int], config: Mapping[str, Any]) -> Weights:
    """Of pickled weights, which nobody opens to look: as large as their files, of the type that config names."""
    size = sum(size for path, size in sizes.items() if PICKLED.fullmatch(path))
    said = config.get("torch_dtype") or config.get("dtype")
    dtype = next((dtype for dtype in WIDTHS if NAMES[dtype] == said), "")
    if not size or not dtype:
        return Weights(size or None, None, config=config)
    return Weights(size, size // WIDTHS[dtype], {dtype: size}, config)


def _tensors(path: str, size: int, read: Read) -> list[dict[str, Any]]:
    try:
        tensors, length = _header(path, size, read)
        ends = [end for tensor in tensors for end in _within(tensor)]
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise NotSafetensors(f"{path} is no safetensors file: {wrong}.") from None
    if max(ends, default=0) > size - 8 - length:
        raise NotSafetensors(f"{path} is cut off: a tensor lies outside the file.")
    return tensors


def _header(path: str, size: int, read: Read) -> tuple[list[dict[str, Any]], int]:
    length = int.from_bytes(read(path, 0, 8), "little")
    if not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise ValueError(f"its header would be {length:,} bytes long")
    header = json.loads(read(path, 8, length))
    return [entry for name, entry in header.items() if name != "__metadata__"], length


def _within(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    start, end = map(int, tensor["data_offsets"])
    if not 0 <= start <= end or min(tensor["shape"], default=0) < 0:
        raise ValueError("a tensor has no possible place")
    return (end,)


def _config(sizes: Mapping[str, int], read: Read) -> dict[str, Any]:
    """config.json, of the root or of weights/; {} where there is none that describes a model."""
    for path in ("config.json", "weights/config.json"):
        if 0 < sizes.get(path, 0) <= LONGEST_CONFIG:
            try:
                found = json.loads(read(path, 0, sizes[path]))
            except ValueError:
                continue
            if isinstance(found, dict) and found.keys() & TELLING:
                return found
    return {}
