"""Quantization of a language model by torch.ao, checked by the words that it would say next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from serving.config import EngineConfig, Refusal
from serving.models.causal import CausalModel
from serving.quantize import calibration, outcome, whole
from serving.quantize import torch as tools


def quantized(config: EngineConfig, model: CausalModel) -> Mapping[str, Any]:
    """Quantize the model in place; what was done. Agreement is that of the likeliest next token, at each token."""
    method = config.options.method
    if method == "qat":
        if (
            not tools.is_quantized(model.module)
            and getattr(model.module.config, "quantization_config", None) is None
        ):
            raise Refusal(65, "the model is not quantized: its config.json has no quantization_config")
        return {"method": method, "agreement": None}
    if method == "static":
        raise Refusal(65, "torch traces no language model for static quantization: ask for dynamic")
    if config.gpus:
        raise Refusal(65, "torch's dynamic quantization works on CPUs only: take an instance type without a GPU")
    dataset = calibration.file(config)
    texts = [_text(model, one) for one in calibration.items(dataset)] if dataset else []
    size = tools.size(model.module)

    def quantize() -> None:
        model.module = tools.dynamic(model.module)

    answers = (lambda: [_logits(model, text) for text in texts]) if texts else None
    found = outcome.measured(config, [tools.VERSION, transformers.__version__], answers, quantize)
    return whole.report(config, found, size, tools.size(model.module), len(texts))


def _text(model: CausalModel, item: Any) -> str:
    """A line of the dataset: a text, {"text": …} or {"messages": […]}."""
    if isinstance(item, Mapping) and "messages" in item:
        return str(model.tokenizer.apply_chat_template(item["messages"], tokenize=False))
    text = item.get("text") if isinstance(item, Mapping) else item
    if not isinstance(text, str) or not text:
        raise Refusal(65, 'a line of the calibration dataset must be a text, {"text": …} or {"messages": […]}')
    return text


def _logits(model: CausalModel, text: str) -> dict[str, Any]:
    ids = model.tokenizer(text, return_tensors="pt", truncation=True, max_length=model.context_length).input_ids
    with torch.inference_mode():
        return {"logits": model.module(ids).logits[0].float().numpy()}
