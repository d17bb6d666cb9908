"""A model's shape from the header of its GGUF file, as llama.cpp reads it."""

from dataclasses import replace
from typing import Final

from endpoints.gguf import GGUFFacts
from endpoints.memory.shape import Layers, ModelShape, every, grouped

# One full-attention layer in so many, where the architecture fixes it and files don't repeat it.
WINDOWED: Final = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "cohere2": 4,
    "gpt-oss": 2,
    "exaone4": 4,
    "olmo2": 4,
}


def shape_from_gguf(facts: GGUFFacts) -> ModelShape:
    state_layers, state_bytes = _state(facts)
    shape = ModelShape(
        weight_bytes=facts.weight_bytes or None,
        attention=_attention(facts),
        heads=max(facts.head_count, default=None),
        hidden=facts.embedding_length,
        feed_forward=facts.feed_forward_length,
        vocabulary=facts.vocab_size,
        state_bytes=state_bytes,
        state_layers=state_layers,
        trained_context=facts.context_length,
        parameter_count=facts.parameter_count or None,
        # Tied embeddings lie on the host and, as the output layer, once more on the GPU.
        host_bytes=facts.embedding_bytes if facts.output_bytes else 0,
        copied_bytes=facts.repacked_bytes,
    )
    if facts.sliding_window and not _windows(facts, 1):
        note = "The file doesn't say which layers are windowed: all are counted in full, an upper bound."
        return replace(shape, notes=(note,))
    return shape


def _attention(facts: GGUFFacts) -> tuple[Layers, ...] | None:
    if not facts.causal:
        return ()
    count, heads = facts.block_count, max(facts.head_count, default=0)
    if not count or not heads:
        return () if count and facts.ssm else None
    if facts.kv_lora_rank and facts.key_length_mla:  # older files have latent attention's heads written out
        return (Layers(count, 1, facts.kv_lora_rank + (facts.rope_dimension_count or 0), 0, latent=True),)
    guess = (facts.embedding_length or 0) // heads
    key, value = facts.key_length or guess, facts.value_length or guess
    if not key:
        return None
    windows = _windows(facts, count) or [None] * count
    kv_heads = _kv_heads(facts, count, heads)
    if facts.architecture == "t5":  # the decoder keeps its own tokens and the encoder's
        kv_heads, windows = kv_heads * 2, windows * 2
    return grouped(Layers(1, kv, key, value, window) for kv, window in zip(kv_heads, windows, strict=True) if kv)


def _kv_heads(facts: GGUFFacts, count: int, heads: int) -> list[int]:
    listed = facts.head_count_kv or facts.head_count or (heads,)
    if len(listed) == count:
        return list(listed)
    period = facts.full_attention_interval
    return [listed[0] if not period or (layer + 1) % period == 0 else 0 for layer in range(count)]


def _windows(facts: GGUFFacts, count: int) -> list[int | None]:
    """The window of each layer; [] if the file and its architecture leave it open."""
    window, pattern = facts.sliding_window, facts.sliding_window_pattern
    if not window:
        return []
    if len(pattern) > 1:
        return [window if windowed else None for windowed in (*pattern, *[0] * count)[:count]]
    period = (pattern[0] if pattern else 0) or WINDOWED.get(facts.architecture, 0)
    return every(window, period, count) if period else []


def _state(facts: GGUFFacts) -> tuple[int, int]:
    """The recurrent layers, and what all keep of a sequence: a convolution's tail and the state, as f32."""
    ssm, count = facts.ssm, facts.block_count or 0
    if not ssm:
        return 0, 0
    inner, state = ssm.get("inner_size", 0), ssm.get("state_size", 0)
    tail = max(0, ssm.get("conv_kernel", 1) - 1) * (inner + 2 * ssm.get("group_count", 0) * state)
    heads = max(facts.head_count, default=0)
    kv_heads = _kv_heads(facts, count, heads) if heads else []
    recurrent = kv_heads.count(0) or count  # no attention-free layer among them: every layer has both
    return recurrent, recurrent * (tail + inner * state) * 4
