"""The few numbers of a model that its memory need hangs on, from a GGUF header or a config.json.

The traps are in the details: key-value heads are not attention heads, a head's size is not always
hidden / heads, windowed layers keep only their window, latent attention keeps one vector without a pair.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from endpoints.gguf import GGUFFacts

# One full-attention layer in so many, where the architecture fixes it and files don't repeat it.
WINDOWED_IN_GGUF: Final = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "cohere2": 4,
    "gpt-oss": 2,
    "exaone4": 4,
    "olmo2": 4,
}
ENCODERS: Final = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"}
    | {"nomic_bert", "roberta", "xlm-roberta"}
)


@dataclass(frozen=True)
class Layers:
    """`count` attention layers alike, and what each keeps per token.

    kv_heads x (key_length + value_length) values, no more tokens than `window`; `latent` (MLA) keeps one
    vector of key_length for all heads.
    """

    count: int
    kv_heads: int
    key_length: int
    value_length: int
    window: int | None = None
    latent: bool = False


@dataclass(frozen=True)
class ModelShape:
    """`attention` is None where the description doesn't say enough, () where nothing is kept per token.

    `state_bytes`: what recurrent layers keep per sequence, whatever its length.
    """

    weight_bytes: int | None
    attention: tuple[Layers, ...] | None
    heads: int | None = None
    hidden: int | None = None
    feed_forward: int | None = None
    vocabulary: int | None = None
    state_bytes: int = 0
    trained_context: int | None = None
    parameter_count: int | None = None
    notes: tuple[str, ...] = ()


def shape_from_gguf(facts: GGUFFacts) -> ModelShape:
    shape = ModelShape(
        weight_bytes=facts.weight_bytes or None,
        attention=_gguf_attention(facts),
        heads=max(facts.head_count, default=None),
        hidden=facts.embedding_length,
        feed_forward=facts.feed_forward_length,
        vocabulary=facts.vocab_size,
        state_bytes=_gguf_state(facts),
        trained_context=facts.context_length,
        parameter_count=facts.parameter_count or None,
    )
    if facts.sliding_window and not _gguf_windows(facts, 1):
        note = "The file doesn't say which layers are windowed: all are counted in full, an upper bound."
        return replace(shape, notes=(note,))
    return shape


def shape_from_config(config: Mapping[str, Any], weight_bytes: int | None) -> ModelShape:
    """From a Hugging Face config.json; of a multimodal model, the part that writes text."""
    text = config.get("text_config")
    config = text if isinstance(text, Mapping) else config
    heads = _first(config, "num_attention_heads", "n_head", "num_heads")
    return ModelShape(
        weight_bytes=weight_bytes,
        attention=_config_attention(config, heads),
        heads=heads,
        hidden=_first(config, "hidden_size", "n_embd", "d_model"),
        feed_forward=_first(config, "intermediate_size", "n_inner", "d_ff"),
        vocabulary=_first(config, "vocab_size"),
        state_bytes=_config_state(config),
        trained_context=_first(config, "max_position_embeddings", "n_positions", "max_seq_len"),
    )


def _gguf_attention(facts: GGUFFacts) -> tuple[Layers, ...] | None:
    if not facts.causal:
        return ()
    count, heads = facts.block_count, max(facts.head_count, default=0)
    if not count or not heads:
        return () if count and facts.ssm else None
    if facts.kv_lora_rank:
        return (Layers(count, 1, facts.kv_lora_rank + (facts.rope_dimension_count or 0), 0, latent=True),)
    guess = (facts.embedding_length or 0) // heads
    key, value = facts.key_length or guess, facts.value_length or guess
    if not key:
        return None
    windows = _gguf_windows(facts, count) or [None] * count
    kv_heads = _gguf_kv_heads(facts, count, heads)
    if facts.architecture == "t5":  # the decoder keeps its own tokens and the encoder's
        kv_heads, windows = kv_heads * 2, windows * 2
    return _grouped(Layers(1, kv, key, value, window) for kv, window in zip(kv_heads, windows, strict=True) if kv)


def _gguf_kv_heads(facts: GGUFFacts, count: int, heads: int) -> list[int]:
    listed = facts.head_count_kv or facts.head_count or (heads,)
    if len(listed) == count:
        return list(listed)
    every = facts.full_attention_interval
    return [listed[0] if not every or (layer + 1) % every == 0 else 0 for layer in range(count)]


def _gguf_windows(facts: GGUFFacts, count: int) -> list[int | None]:
    """The window of each layer; [] if the file and its architecture leave it open."""
    window, pattern = facts.sliding_window, facts.sliding_window_pattern
    if not window:
        return []
    if len(pattern) > 1:
        return [window if windowed else None for windowed in (*pattern, *[0] * count)[:count]]
    every = (pattern[0] if pattern else 0) or WINDOWED_IN_GGUF.get(facts.architecture, 0)
    return _every(window, every, count) if every else []


def _gguf_state(facts: GGUFFacts) -> int:
    """Bytes per sequence of llama.cpp's recurrent state: a convolution's tail and the state, as f32."""
    ssm, count = facts.ssm, facts.block_count or 0
    if not ssm:
        return 0
    inner, state = ssm.get("inner_size", 0), ssm.get("state_size", 0)
    tail = max(0, ssm.get("conv_kernel", 1) - 1) * (inner + 2 * ssm.get("group_count", 0) * state)
    heads = max(facts.head_count, default=0)
    kv_heads = _gguf_kv_heads(facts, count, heads) if heads else []
    recurrent = kv_heads.count(0) or count  # no attention-free layer among them: every layer has both
    return recurrent * (tail + inner * state) * 4


def _config_attention(config: Mapping[str, Any], heads: int | None) -> tuple[Layers, ...] | None:
    if config.get("model_type") in ENCODERS and not config.get("is_decoder"):
        return ()
    if config.get("model_type") in {"mamba", "mamba2"}:
        return ()
    if config.get("is_encoder_decoder"):
        return _config_decoder(config)
    count, hidden = (
        _first(config, "num_hidden_layers", "n_layer", "num_layers"),
        _first(config, "hidden_size", "n_embd"),
    )
    if not count or not heads:
        return None
    if rank := _first(config, "kv_lora_rank"):
        return (Layers(count, 1, rank + (_first(config, "qk_rope_head_dim") or 0), 0, latent=True),)
    head = _first(config, "head_dim") or (hidden or 0) // heads
    kv_heads = _first(config, "num_key_value_heads") or (1 if config.get("multi_query") else heads)
    if not head:
        return None
    kept = _config_windows(config, count)
    return _grouped(Layers(1, kv_heads, head, head, window or None) for window in kept if window is not None)


def _config_windows(config: Mapping[str, Any], count: int) -> list[int | None]:
    """Per layer: the window, 0 for the whole length, None for a layer without a key-value cache."""
    window = _first(config, "sliding_window", "attention_chunk_size") or 0
    types = config.get("layer_types")
    if isinstance(types, Sequence) and len(types) == count:
        kinds: dict[str, int | None] = {"sliding_attention": window, "chunked_attention": window}
        return [kinds.get(kind, 0) if "attention" in kind and "linear" not in kind else None for kind in types]
    if period := _first(config, "attn_layer_period"):
        offset = _first(config, "attn_layer_offset") or 0
        return [0 if layer % period == offset else None for layer in range(count)]
    if not window or config.get("use_sliding_window") is False:
        return [0] * count
    if every := _first(config, "sliding_window_pattern"):
        return [item or 0 for item in _every(window, every, count)]
    whole = _first(config, "max_window_layers") if config.get("use_sliding_window") else 0
    return [0 if layer < (whole or 0) else window for layer in range(count)]


def _config_decoder(config: Mapping[str, Any]) -> tuple[Layers, ...] | None:
    """Encoder and decoder: each decoder layer keeps its own tokens and, for cross-attention, the encoder's."""
    count = _first(config, "decoder_layers", "num_decoder_layers", "num_layers")
    heads, hidden = _first(config, "decoder_attention_heads", "num_heads"), _first(config, "d_model")
    if not count or not heads or not hidden:
        return None
    head = _first(config, "d_kv") or hidden // heads
    return (Layers(2 * count, heads, head, head),)


def _config_state(config: Mapping[str, Any]) -> int:
    """Bytes per sequence that recurrent layers keep (f32 state; convolution tail counted as f32 too)."""
    count = _first(config, "num_hidden_layers") or 0
    if config.get("model_type") in {"mamba", "mamba2"} or _first(config, "attn_layer_period"):
        hidden = _first(config, "hidden_size") or 0
        inner = _first(config, "intermediate_size") if config.get("model_type") == "mamba" else None
        inner = inner or hidden * (_first(config, "expand", "mamba_expand") or 2)
        state = _first(config, "state_size", "mamba_d_state") or 16
        groups = _first(config, "n_groups") or 0
        tail = ((_first(config, "conv_kernel", "mamba_d_conv") or 4) - 1) * (inner + 2 * groups * state)
        period = _first(config, "attn_layer_period")
        return (count - count // period if period else count) * (inner * state + tail) * 4
    types = config.get("layer_types")
    linear = types.count("linear_attention") if isinstance(types, list) else 0
    if not linear:
        return 0
    keys = (_first(config, "linear_num_key_heads") or 0) * (_first(config, "linear_key_head_dim") or 0)
    values = (_first(config, "linear_num_value_heads") or 0) * (_first(config, "linear_value_head_dim") or 0)
    tail = ((_first(config, "linear_conv_kernel_dim") or 4) - 1) * (2 * keys + values)
    return linear * (values * (_first(config, "linear_key_head_dim") or 0) + tail) * 4


def _every(window: int, every: int, count: int) -> list[int | None]:
    """Every `every`th layer sees the whole length, the others `window`."""
    return [None if (layer + 1) % every == 0 else window for layer in range(count)]


def _grouped(layers: Iterable[Layers]) -> tuple[Layers, ...]:
    return tuple(replace(layer, count=count) for layer, count in Counter(layers).items())


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is a positive whole number: published configs name things differently."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
