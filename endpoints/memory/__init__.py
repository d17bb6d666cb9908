"""How much memory a model needs, and whether that fits: pure calculation, no I/O, no Django."""

from endpoints.memory.estimate import (
    Device,
    Estimate,
    Parts,
    Quick,
    Verdict,
    estimate,
    quick_estimate,
    stated,
    uncounted,
)
from endpoints.memory.fit import KV_TYPE_FOR, format_problem, precision_problem, usable_bytes
from endpoints.memory.floor import Floor
from endpoints.memory.from_config import shape_from_config
from endpoints.memory.from_gguf import shape_from_gguf
from endpoints.memory.kv import CHECKPOINTS, KV_TYPES, bytes_per_token, kv_bytes
from endpoints.memory.shape import Layers, ModelShape
from endpoints.memory.vllm_words import besides_cache

__all__ = [
    "CHECKPOINTS",
    "KV_TYPES",
    "KV_TYPE_FOR",
    "Device",
    "Estimate",
    "Floor",
    "Layers",
    "ModelShape",
    "Parts",
    "Quick",
    "Verdict",
    "besides_cache",
    "bytes_per_token",
    "estimate",
    "format_problem",
    "kv_bytes",
    "precision_problem",
    "quick_estimate",
    "shape_from_config",
    "shape_from_gguf",
    "stated",
    "uncounted",
    "usable_bytes",
]
