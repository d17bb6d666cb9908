"""A model's shape from its Hugging Face config.json, and from what its class fills in there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from endpoints.memory.shape import Layers, ModelShape, grouped

Config = Mapping[str, Any]

ENCODERS: Final = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"}
    | {"nomic_bert", "roberta", "xlm-roberta"}
)
PURE_STATE: Final = frozenset({"mamba", "mamba2"})
TEXT_PARTS: Final = ("thinker_config", "text_config", "llm_config", "language_config")  # of multimodal models
DEFAULTS: Final = {"gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}}
# One full-attention layer in so many, where the class fixes it and published files don't repeat it.
WINDOWED: Final = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gemma3n_text": 5,
    "cohere2": 4,
    "exaone4": 4,
    "olmo3": 4,
    "gpt_oss": 2,
    "llama4_text": 4,
}
WINDOWED_THROUGHOUT: Final = frozenset({"mistral", "mixtral", "phi3", "phimoe", "starcoder2"})
UPPER_BOUND = "The config doesn't say which layers are windowed: all are counted in full, an upper bound."

FULL, WINDOW, CHUNK, STATE, BOTH, NOTHING = "full", "window", "chunk", "state", "both", "nothing"
KINDS: Final = {
    "sliding_attention": WINDOW,
    "chunked_attention": CHUNK,
    "linear_attention": STATE,
    "mamba": STATE,
    "mamba2": STATE,
    "recurrent": STATE,
    "conv": STATE,
    "hybrid": BOTH,
    "mlp": NOTHING,
    "moe": NOTHING,
}
NEMOTRON: Final = {"M": STATE, "*": FULL}  # other letters have no attention


def shape_from_config(config: Config, weight_bytes: int | None) -> ModelShape:
    """Of a multimodal model, the part that writes text."""
    config = text_part(config)
    count, heads = _count(config), _first(config, "num_attention_heads", "n_head", "num_heads", "n_heads")
    kinds, notes = _kinds(config, count)
    states = kinds.count(STATE) + kinds.count(BOTH)
    return ModelShape(
        weight_bytes=weight_bytes,
        attention=_attention(config, kinds, heads),
        heads=heads,
        hidden=_first(config, "hidden_size", "n_embd", "d_model"),
        feed_forward=_first(config, "intermediate_size", "n_inner", "d_ff"),
        vocabulary=_first(config, "vocab_size"),
        state_bytes=states * _state_values(config) * 4,  # as f32; some engines keep half of that
        state_layers=states,
        trained_context=_first(config, "max_position_embeddings", "n_positions", "max_seq_len"),
        notes=notes,
    )


def text_part(config: Config) -> Config:
    """The part of a multimodal model's config that describes its language model."""
    for name in TEXT_PARTS:
        if isinstance(part := config.get(name), Mapping):
            config = part
    return {**DEFAULTS.get(str(config.get("model_type")), {}), **config}


def _count(config: Config) -> int:
    return _first(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers") or 0


def _kinds(config: Config, count: int) -> tuple[list[str], tuple[str, ...]]:
    """What each layer is, and what must be said of it."""
    kind = config.get("model_type")
    if kind in PURE_STATE:
        return [STATE] * count, ()
    if kind == "falcon_h1":
        return [BOTH] * count, ()
    if listed := _listed(config, count):
        return listed, ()
    if isinstance(marks := config.get("hybrid_override_pattern"), str) and marks:
        return [NEMOTRON.get(mark, NOTHING) for mark in marks], ()
    if isinstance(places := config.get("attn_layer_indices"), Sequence):
        return [FULL if layer in places else STATE for layer in range(count)], ()
    if period := _first(config, "attn_layer_period"):
        offset = _first(config, "attn_layer_offset") or 0
        return [FULL if layer % period == offset else STATE for layer in range(count)], ()
    return _windowed(config, count)


def _listed(config: Config, count: int) -> list[str]:
    for name in ("layer_types", "layers_block_type", "block_types"):
        types = config.get(name)
        if isinstance(types, Sequence) and types and not isinstance(types, str):
            return [KINDS.get(str(types[layer % len(types)]), FULL) for layer in range(count)]
    return []


def _windowed(config: Config, count: int) -> tuple[list[str], tuple[str, ...]]:
    """Full or windowed, of models that have no other kind."""
    kind, windowed = str(config.get("model_type")), WINDOW if _first(config, "sliding_window") else CHUNK
    if not _window(config) or config.get("use_sliding_window") is False:
        return [FULL] * count, ()
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # such as LLLG
        return [windowed if pattern[layer % len(pattern)] == "L" else FULL for layer in range(count)], ()
    period = _first(config, "sliding_window_pattern", "_sliding_window_pattern") or WINDOWED.get(kind)
    if period:
        return [FULL if (layer + 1) % period == 0 else windowed for layer in range(count)], ()
    if config.get("use_sliding_window"):
        whole = _first(config, "max_window_layers") or 0
        return [FULL if layer < whole else windowed for layer in range(count)], ()
    if kind in WINDOWED_THROUGHOUT:
        return [windowed] * count, ()
    return [FULL] * count, (UPPER_BOUND,)


def _window(config: Config) -> int | None:
    return _first(config, "sliding_window", "attention_chunk_size")


def _attention(config: Config, kinds: Sequence[str], heads: int | None) -> tuple[Layers, ...] | None:
    if config.get("model_type") in ENCODERS and not config.get("is_decoder"):
        return ()
    if config.get("is_encoder_decoder"):
        return _decoder(config)
    if kinds and not {FULL, WINDOW, CHUNK, BOTH} & set(kinds):
        return ()
    if not kinds or not heads:
        return None
    if (rank := _first(config, "kv_lora_rank")) and config.get("model_type") != "minicpm3":
        return (_latent(config, kinds, heads, rank),)
    one = _head(config, heads)
    if not one.key_length:
        return None
    known = {WINDOW: _local(config, one), CHUNK: replace(_local(config, one), chunked=True)}
    known |= {FULL: _global(config, one)} | {BOTH: one}
    return grouped(known[kind] for kind in kinds if kind in known)


def _latent(config: Config, kinds: Sequence[str], heads: int, rank: int) -> Layers:
    rope, nope = _first(config, "qk_rope_head_dim") or 0, _first(config, "qk_nope_head_dim") or 0
    expanded = heads * (nope + rope + (_first(config, "v_head_dim") or 0))
    count = sum(kind not in (STATE, NOTHING) for kind in kinds)
    return Layers(count, 1, rank + rope, 0, latent=True, expanded=expanded)


def _head(config: Config, heads: int) -> Layers:
    """One layer of the usual kind."""
    hidden = _first(config, "hidden_size", "n_embd", "d_model") or 0
    parts = (_first(config, "qk_nope_head_dim") or 0) + (_first(config, "qk_rope_head_dim") or 0)
    key = _first(config, "head_dim", "attention_head_dim", "kv_channels") or parts or hidden // heads
    return Layers(1, _kv_heads(config, heads), key, key if parts else _first(config, "v_head_dim") or key)


def _kv_heads(config: Config, heads: int) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    names = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    inner = config.get("attn_config")
    return _first(config, *names) or (_first(inner, "kv_n_heads") if isinstance(inner, Mapping) else None) or heads


def _local(config: Config, one: Layers) -> Layers:
    """A windowed layer: some models give it heads of its own."""
    key, value = _first(config, "swa_head_dim") or one.key_length, _first(config, "swa_v_head_dim")
    kv_heads = _first(config, "swa_num_key_value_heads") or one.kv_heads
    same = key == one.key_length
    return Layers(1, kv_heads, key, value or (one.value_length if same else key), window=_window(config))


def _global(config: Config, one: Layers) -> Layers:
    kv_heads, key = _first(config, "num_global_key_value_heads"), _first(config, "global_head_dim")
    return Layers(1, kv_heads or one.kv_heads, key or one.key_length, key or one.value_length)


def _decoder(config: Config) -> tuple[Layers, ...] | None:
    """Encoder and decoder: each decoder layer keeps its own tokens and, for cross-attention, the encoder's."""
    count = _first(config, "decoder_layers", "num_decoder_layers", "num_layers")
    heads, hidden = _first(config, "decoder_attention_heads", "num_heads"), _first(config, "d_model")
    if not count or not heads or not hidden:
        return None
    head = _first(config, "d_kv") or hidden // heads
    own = Layers(count, heads, head, head)
    return (own, replace(own, fixed=_first(config, "max_source_positions")))


def _state_values(config: Config) -> int:
    """Values per sequence that one recurrent layer keeps: the state and the tail of a convolution."""
    if keys := _product(config, "linear_num_key_heads", "linear_key_head_dim"):
        values = _product(config, "linear_num_value_heads", "linear_value_head_dim")
        tail = ((_first(config, "linear_conv_kernel_dim") or 4) - 1) * (2 * keys + values)
        return values * (_first(config, "linear_key_head_dim") or 0) + tail
    state = _first(config, "state_size", "ssm_state_size", "mamba_d_state") or 16
    groups = _first(config, "n_groups", "mamba_n_groups", "mamba_ngroups") or 0
    inner = _inner(config)
    tail = ((_first(config, "conv_kernel", "mamba_d_conv") or 4) - 1) * (inner + 2 * groups * state)
    return inner * state + tail


def _inner(config: Config) -> int:
    """The width of a state space layer."""
    named = _first(config, "mamba_d_ssm") or (
        _product(config, "mamba_n_heads", "mamba_d_head")
        or _product(config, "mamba_num_heads", "mamba_head_dim")
        or _product(config, "n_mamba_heads", "mamba_headdim")
    )
    if named:
        return named
    if config.get("model_type") == "mamba" and (width := _first(config, "intermediate_size")):
        return width
    return (_first(config, "hidden_size", "n_embd") or 0) * (_first(config, "expand", "mamba_expand") or 2)


def _product(config: Config, one: str, other: str) -> int:
    return (_first(config, one) or 0) * (_first(config, other) or 0)


def _first(config: Config, *names: str) -> int | None:
    """The first of these that is a positive whole number: published configs name things differently."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
