"""The size of the key-value cache: what a server keeps of every token of every running sequence."""

from typing import Final

from endpoints.ggml import TENSOR_TYPES, Block
from endpoints.memory.shape import Layers, ModelShape

LLAMA_CPP, VLLM = "llama.cpp", "vllm"

PADDING: Final = 256  # llama.cpp rounds each sequence's length, and a windowed layer's, up to this
STEP: Final = 512  # tokens that llama.cpp reads at once: a windowed layer keeps them beside its window
CHECKPOINTS: Final = 2  # of windows and states that a llama.cpp sequence may go back to, as its launcher asks
PAGE: Final = 16  # tokens of vLLM's block
BATCHED: Final = 2048  # tokens of vLLM's step
BATCHED_LARGE: Final = 8192  # on cards of 70 GiB and more
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
    shape: ModelShape,
    *,
    length: int,
    concurrency: int,
    kv_type: str,
    engine: str,
    gpus: int = 1,
    batched: int = BATCHED,
) -> int | None:
    """Bytes on each of `gpus` for `concurrency` sequences of `length` tokens; None: shape unknown.

    llama.cpp gives each GPU some of the layers, vLLM a part of every layer; others use one. `batched`: the tokens
    of one step of vLLM.
    """
    if shape.attention is None:
        return None
    if engine == LLAMA_CPP:
        return concurrency * _by_layers(shape, _rounded(length, PADDING), kv_type, gpus)
    if engine == VLLM:
        return concurrency * _by_pages(shape, length, kv_type, gpus, batched)
    return concurrency * _whole(shape, length, kv_type)


def checkpoint_bytes(shape: ModelShape, kv_type: str) -> int:
    """Bytes in the host's memory of what llama.cpp lays aside of a sequence, to go back to.

    Only of what can't be cut short: the windows of windowed layers, and states.
    """
    windows = sum(
        layers.count * layers.window * bytes_per_token(layers, kv_type)
        for layers in shape.attention or ()
        if layers.window
    )
    return CHECKPOINTS * (windows + shape.state_bytes)


def _by_layers(shape: ModelShape, length: int, kv_type: str, gpus: int) -> int:
    """llama.cpp's: a windowed layer keeps its window and the step that is being read."""
    total = -(-shape.state_bytes // gpus)
    for layers in shape.attention or ():
        kept = length if layers.window is None else min(length, _rounded(layers.window + STEP, PADDING))
        total += -(-layers.count // gpus) * kept * bytes_per_token(layers, kv_type)
    return total


def _by_pages(shape: ModelShape, length: int, kv_type: str, tp: int, batched: int) -> int:
    """vLLM's, as it counts a request before it starts (v1/core/kv_cache_utils.py).

    All pages are of one size. Where layers differ in kind they are put in groups of equally many, the last one
    filled up with layers that don't exist; each group has pages of its own for a sequence.
    """
    kinds = [
        (layers.count, PAGE * bytes_per_token(layers, kv_type, tp), _tokens(layers, length, batched))
        for layers in shape.attention or ()
    ]
    states = max(1, shape.state_layers)
    state = -(-shape.state_bytes // states // tp)
    if not state and len({_kept(layers) for layers in shape.attention or ()}) < 2:
        return sum(count * page * -(-tokens // PAGE) for count, page, tokens in kinds)
    kinds += [(states, state, 1)] if state else []
    page, group = max(page for _, page, _ in kinds), _group([count for count, _, _ in kinds])
    pages = sum(-(-count // group) * -(-tokens // max(1, PAGE * page // own)) for count, own, tokens in kinds)
    return group * page * pages


def _tokens(layers: Layers, length: int, batched: int) -> int:
    """What vLLM may have of one sequence in such a layer at once, a page more where the first one is cut."""
    if layers.fixed is not None:
        return layers.fixed
    window = _kept(layers)
    if window is None:
        return length
    return _rounded(min(length, window - 1 + batched), PAGE) + PAGE


def _kept(layers: Layers) -> int | None:
    """The window that vLLM makes use of: with chunked attention it keeps everything."""
    return None if layers.chunked else layers.window


def _group(counts: list[int]) -> int:
    """The size of vLLM's groups of layers: the fewest of a kind, or the most if there are not many more."""
    low, high = min(counts), max(counts)
    return high if high < low * 1.5 else low


def _whole(shape: ModelShape, length: int, kv_type: str) -> int:
    """Everything of every layer, as models keep it that know nothing of windows and latent vectors."""
    total, block = shape.state_bytes, KV_TYPES[kv_type]
    for layers in shape.attention or ():
        token = block.bytes_for(layers.expanded) if layers.expanded else bytes_per_token(layers, kv_type)
        total += layers.count * (length if layers.fixed is None else layers.fixed) * token
    return total


def _rounded(tokens: int, to: int) -> int:
    return -(-tokens // to) * to
