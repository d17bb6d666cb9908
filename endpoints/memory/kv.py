"""The size of the key-value cache: what a server keeps of every token of every running sequence."""

from typing import Final

from endpoints.ggml import TENSOR_TYPES, Block
from endpoints.memory.shape import Layers, ModelShape

WINDOW_SLACK: Final = 512  # a windowed layer also keeps the batch that is being read (llama.cpp's ubatch)
PACKED_LATENT: Final = 656  # vLLM's packed fp8 for latent attention: bytes per token and layer

# llama.cpp's names in lower case; fp8 and the per-token-head kinds are vLLM's.
KV_TYPES: Final[dict[str, Block]] = {
    name.lower(): block
    for name, block in ((block.name, block) for block in TENSOR_TYPES.values())
    if name in {"F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"}
} | {
    "fp8": Block("fp8", 1, 1),
    "fp8_ds_mla": Block("fp8_ds_mla", 1, 1),
    "fp8_per_token_head": Block("fp8_per_token_head", 1, 1),
    "int8_per_token_head": Block("int8_per_token_head", 1, 1),
}


def bytes_per_token(layers: Layers, kv_type: str, tp: int = 1) -> int:
    """Bytes that ONE of these layers keeps of one token, on one of `tp` GPUs.

    Heads are spread over the GPUs and, when there are more GPUs than heads, repeated; a latent vector is
    repeated always.
    """
    block = KV_TYPES[kv_type]
    if layers.latent:
        return PACKED_LATENT if kv_type == "fp8_ds_mla" else block.bytes_for(layers.key_length)
    heads = max(1, layers.kv_heads // tp)
    scales = 2 * heads * 4 if kv_type.endswith("per_token_head") else 0
    return block.bytes_for(heads * layers.key_length) + block.bytes_for(heads * layers.value_length) + scales


def kv_bytes(
    shape: ModelShape, *, length: int, concurrency: int, kv_type: str, tp: int = 1, padding: int = 1
) -> int | None:
    """Bytes for `concurrency` sequences of `length` tokens (rounded up to `padding`); None: shape unknown."""
    if shape.attention is None:
        return None
    length = -(-length // padding) * padding
    sequence = shape.state_bytes // tp
    for layers in shape.attention:
        kept = length if layers.window is None else min(length, layers.window + WINDOW_SLACK)
        sequence += layers.count * kept * bytes_per_token(layers, kv_type, tp)
    return concurrency * sequence
