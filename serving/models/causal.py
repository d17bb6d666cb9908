"""A language model in a transformers folder without a model.py: chat, completions and their streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from serving.config import EngineConfig, Refusal
from serving.models.base import BadInput, Message, Params, Reply, Served
from serving.models.own import joined

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FORMATS = {"fp32": torch.float32, "fp16": torch.float16}
NEW_TOKENS = 256  # where a request names no limit


class CausalModel(Served):
    """transformers' generate behind what the server asks."""

    def __init__(self, model: Any, tokenizer: Any, context_length: int) -> None:
        self.module = model
        self.tokenizer = tokenizer
        self.context_length = context_length
        talks = bool(getattr(tokenizer, "chat_template", None))
        self.capabilities = ("chat", "completions") if talks else ("completions",)

    def chat(self, messages: Sequence[Message], params: Params) -> Reply:
        """See Served.chat."""
        return joined(self.stream(messages, params))

    def stream(self, messages: Sequence[Message], params: Params) -> Iterator[str | Reply]:
        """See Served.stream. By the tokenizer's own chat template."""
        try:
            prompt = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # the template is the model's own program
            raise BadInput(f"the model's chat template refused these messages: {error}") from error
        yield from self._generate(self._ids(prompt, special=False), params)

    def complete(self, prompt: str, params: Params) -> Iterator[str | Reply]:
        """See Served.complete."""
        yield from self._generate(self._ids(prompt, special=True), params)

    def count_tokens(self, text: str) -> int | None:
        """See Served.count_tokens."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def warm_up(self) -> str:
        """See Served.warm_up."""
        joined(self.complete("Hi", {"max_tokens": 1}))
        return "warmed up with one token"

    def metadata(self) -> dict[str, Any]:
        """See Served.metadata."""
        return {
            "architecture": type(self.module).__name__,
            "parameters": sum(one.numel() for one in self.module.parameters()),
            "dtype": str(self.module.dtype).removeprefix("torch."),
            "device": str(self.module.device),
        }

    def _ids(self, prompt: str, *, special: bool) -> Any:
        return self.tokenizer(prompt, add_special_tokens=special, return_tensors="pt").input_ids

    def _generate(self, ids: Any, params: Params) -> Iterator[str | Reply]:
        """The new text in pieces, and a Reply with the counts at the end."""
        prompt = ids.shape[1]
        if prompt >= self.context_length:
            raise BadInput(f"the prompt has {prompt} tokens, and the context length is {self.context_length}")
        limit = min(params.get("max_tokens") or NEW_TOKENS, self.context_length - prompt)
        streamer = transformers.TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        work = _Generation(self.module, self.tokenizer, streamer, ids, sampling(params, limit))
        work.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            work.stopped.set()  # the next token sees it
            work.join()
        if work.failed is not None:
            raise work.failed
        ended = "length" if work.new >= limit and not work.at_end else "stop"
        yield Reply("", ended, prompt, work.new)


class _Generation(threading.Thread):
    """One call of generate, beside the thread that reads its pieces."""

    def __init__(self, module: Any, tokenizer: Any, streamer: Any, ids: Any, given: Mapping[str, Any]) -> None:
        super().__init__(daemon=True)
        self.module, self.tokenizer, self.streamer, self.ids, self.given = module, tokenizer, streamer, ids, given
        self.stopped = threading.Event()
        self.failed: Exception | None = None
        self.new = 0
        self.at_end = False

    def run(self) -> None:
        try:
            with torch.inference_mode():
                ids = self.ids.to(self.module.device)
                found = self.module.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    streamer=self.streamer,
                    stopping_criteria=transformers.StoppingCriteriaList([self._asked_to_stop]),
                    tokenizer=self.tokenizer,
                    **self.given,
                )
            self.new = found.shape[1] - ids.shape[1]
            self.at_end = int(found[0, -1]) in _ends(self.module)
        except Exception as error:  # noqa: BLE001  raised again by the thread that reads
            self.failed = error
            self.streamer.end()

    def _asked_to_stop(self, ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((ids.shape[0],), self.stopped.is_set(), device=ids.device)


def sampling(params: Params, limit: int) -> dict[str, Any]:
    """A request's settings as generate takes them. Without a temperature, or with 0, it is greedy."""
    given: dict[str, Any] = {"max_new_tokens": limit, "do_sample": bool(params.get("temperature"))}
    if given["do_sample"]:
        given |= {name: params[name] for name in ("temperature", "top_k", "top_p") if name in params}
    if stop := params.get("stop"):
        given["stop_strings"] = [stop] if isinstance(stop, str) else list(stop)
    return given


def load(config: EngineConfig, folder: str) -> CausalModel:
    """The model of this folder. Only safetensors, unless pickles are allowed; never code out of the folder."""
    weights = str(Path(folder) / "weights") if (Path(folder) / "weights" / "config.json").is_file() else folder
    words = str(Path(folder) / "tokenizer") if (Path(folder) / "tokenizer").is_dir() else weights
    options = config.options
    if not options.allow_pickle and not list(Path(weights).glob("*.safetensors")):
        raise Refusal(65, "the weights are pickled, which can run code: save them as safetensors")
    torch.set_num_threads(config.threads)
    dtype = FORMATS.get(options.load_format) or DTYPES.get(options.data_type, torch.float32)
    dtype = torch.float32 if options.method == "dynamic" else dtype  # what torch quantizes from
    tokenizer = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
    if options.padding != "none":
        tokenizer.padding_side = options.padding
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights, torch_dtype=dtype, local_files_only=True, use_safetensors=None if options.allow_pickle else True
    )
    model.eval()
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and config.context_length > longest:
        raise Refusal(65, f"the model reads at most {longest} tokens, and {config.context_length} are asked for")
    return CausalModel(model.to("cuda") if config.gpus else model, tokenizer, config.context_length)


def fits(folder: str) -> bool:
    """Whether this is a transformers folder of a model that writes text."""
    return any((Path(folder) / place).is_file() for place in ("config.json", "weights/config.json")) and any(
        list((Path(folder) / place).glob(pattern))
        for place in (".", "weights")
        for pattern in ("*.safetensors", "pytorch_model*.bin")
    )


def _ends(module: Any) -> set[int]:
    ends = module.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [] if ends is None else [ends])
