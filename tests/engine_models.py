"""Model files of zeros that llama.cpp loads, of architectures whose memory differs in kind."""

from typing import Any

from tests.model_files import gguf

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
VOCABULARY = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.scores": [0.0] * 259,
}
HIDDEN, FEED, RANK, ROPE = 256, 512, 128, 32
Tensors = list[tuple[str, tuple[int, ...], str]]


def plain(kind: str = "F16") -> bytes:
    """Grouped heads: 4, and 2 of keys and values."""
    return _file("llama", _heads(2), [_attention(256, 128, kind), _feed(kind)])


def windowed() -> bytes:
    """Ten of twelve layers see 64 tokens."""
    numbers = _heads(12) | {
        "attention.key_length": 64,
        "attention.value_length": 64,
        "attention.sliding_window": 64,
    }
    norms: Tensors = [(name, (HIDDEN,), "F32") for name in ("post_attention_norm", "post_ffw_norm")]
    norms += [(name, (64,), "F32") for name in ("attn_q_norm", "attn_k_norm")]
    return _file("gemma3", numbers, [norms, _attention(256, 128, "F16"), _feed("F16")])


def latent(*, written_out: bool) -> bytes:
    """DeepSeek's attention with its one vector, or with all heads' keys and values as in older files."""
    heads, nope, value, query = 4, 64, 64, 96
    numbers = _heads(2) | {"attention.kv_lora_rank": RANK, "attention.q_lora_rank": query}
    numbers |= {"rope.dimension_count": ROPE, "leading_dense_block_count": 2, "expert_feed_forward_length": 64}
    numbers |= {"expert_shared_count": 1, "expert_count": 0, "expert_used_count": 0, "expert_weights_scale": 1.0}
    down = [("attn_q_a", (HIDDEN, query), "F16"), ("attn_q_a_norm", (query,), "F32")]
    down += [("attn_q_b", (query, heads * (nope + ROPE)), "F16"), ("attn_kv_a_norm", (RANK,), "F32")]
    down += [("attn_kv_a_mqa", (HIDDEN, RANK + ROPE), "F16"), ("attn_output", (heads * value, HIDDEN), "F16")]
    down += [("attn_norm", (HIDDEN,), "F32")]
    if written_out:
        numbers |= {"attention.head_count_kv": heads, "attention.key_length": nope + ROPE}
        numbers |= {"attention.value_length": value}
        up: Tensors = [("attn_kv_b", (RANK, heads * (nope + value)), "F16")]
    else:
        numbers |= {
            "attention.head_count_kv": 1,
            "attention.key_length": RANK + ROPE,
            "attention.value_length": RANK,
        }
        numbers |= {"attention.key_length_mla": nope + ROPE, "attention.value_length_mla": value}
        up = [("attn_k_b", (nope, RANK, heads), "F16"), ("attn_v_b", (RANK, value, heads), "F16")]
    return _file("deepseek2", numbers, [down, up, _feed("F16")])


def state_space() -> bytes:
    """Mamba: no cache, a state."""
    inner, state, step = 512, 16, 16
    numbers = _heads(3) | {"feed_forward_length": 0, "attention.head_count": 0, "attention.head_count_kv": 0}
    numbers |= {"ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": step}
    layer: Tensors = [("attn_norm", (HIDDEN,), "F32"), ("ssm_in", (HIDDEN, 2 * inner), "F16")]
    layer += [("ssm_conv1d", (4, inner), "F32"), ("ssm_conv1d.bias", (inner,), "F32")]
    layer += [("ssm_x", (inner, step + 2 * state), "F16"), ("ssm_dt", (step, inner), "F32")]
    layer += [("ssm_dt.bias", (inner,), "F32"), ("ssm_a.", (state, inner), "F32"), ("ssm_d.", (inner,), "F32")]
    return _file("mamba", numbers, [layer, [("ssm_out", (inner, HIDDEN), "F16")]])


def _heads(layers: int) -> dict[str, Any]:
    return {
        "context_length": 8192,
        "block_count": layers,
        "embedding_length": HIDDEN,
        "feed_forward_length": FEED,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }


def _attention(queries: int, keys: int, kind: str) -> Tensors:
    tensors: Tensors = [("attn_norm", (HIDDEN,), "F32"), ("attn_q", (HIDDEN, queries), kind)]
    tensors += [(name, (HIDDEN, keys), kind) for name in ("attn_k", "attn_v")]
    return [*tensors, ("attn_output", (queries, HIDDEN), kind)]


def _feed(kind: str) -> Tensors:
    tensors: Tensors = [(name, (HIDDEN, FEED), kind) for name in ("ffn_gate", "ffn_up")]
    return [("ffn_norm", (HIDDEN,), "F32"), *tensors, ("ffn_down", (FEED, HIDDEN), kind)]


def _file(architecture: str, numbers: dict[str, Any], layer: list[Tensors]) -> bytes:
    entries = {f"{architecture}.{key}": value for key, value in numbers.items()}
    tensors: Tensors = [
        ("token_embd.weight", (HIDDEN, len(TOKENS)), "F16"),
        ("output_norm.weight", (HIDDEN,), "F32"),
    ]
    for block in range(numbers["block_count"]):
        for name, shape, kind in (tensor for part in layer for tensor in part):
            ending = "" if "." in name else ".weight"
            tensors.append((f"blk.{block}.{name.removesuffix('.')}{ending}", shape, kind))
    return gguf({"general.architecture": architecture} | VOCABULARY | entries, tensors)
