"""A model folder's own model.py: found, loaded, asked what it can do, and called as it wants to be called."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from serving.config import EngineConfig, Refusal
from serving.log import colourless
from serving.models.base import BadInput, Message, Params, Reply, Served
from serving.models.tokenizer import Counter, counter

FILE = "model.py"
CLASS = "Model"


class OwnModel(Served):
    """The author's object behind what the server asks. `model` has been loaded.

    A ValueError of theirs is a BadInput: its text goes to whoever sent the request. Any other exception is a
    fault of the model: it goes to the log, with its traceback.
    """

    def __init__(self, model: Any, folder: str) -> None:
        self.model = model
        self.thread_safe = bool(getattr(model, "thread_safe", True))
        self.by_stream = not hasattr(model, "chat")
        self.capabilities = _capabilities(model)
        self._count: Counter = getattr(model, "count_tokens", None) or counter(folder)

    def predict(self, inputs: list[Any]) -> list[Any]:
        """See Served.predict."""
        outputs = _asked(self.model.predict, inputs)
        found = list(outputs)
        if len(found) != len(inputs):
            raise TypeError(f"predict answered {len(found)} outputs for {len(inputs)} inputs")
        return found

    def chat(self, messages: Sequence[Message], params: Params) -> Reply:
        """See Served.chat. From `stream` if there is no `chat`."""
        if hasattr(self.model, "chat"):
            return _reply(_asked(self.model.chat, messages, **_accepted(self.model.chat, params)))
        return joined(self.stream(messages, params))

    def stream(self, messages: Sequence[Message], params: Params) -> Iterator[str | Reply]:
        """See Served.stream. In one piece if there is no `stream`."""
        if not hasattr(self.model, "stream"):
            yield self.chat(messages, params)
            return
        yield from _pieces(_asked(self.model.stream, messages, **_accepted(self.model.stream, params)))

    def complete(self, prompt: str, params: Params) -> Iterator[str | Reply]:
        """See Served.complete. Without a `complete` the prompt is the user's message in a chat."""
        if not hasattr(self.model, "complete"):
            yield from self.stream([{"role": "user", "content": prompt}], params)
            return
        answer = _asked(self.model.complete, prompt, **_accepted(self.model.complete, params))
        yield from _pieces([answer] if isinstance(answer, (str, Mapping)) else answer)

    def embed(self, texts: list[str]) -> list[list[float]]:
        """See Served.embed."""
        vectors = list(_asked(self.model.embed, texts))
        if len(vectors) != len(texts):
            raise TypeError(f"embed answered {len(vectors)} vectors for {len(texts)} texts")
        return [[float(number) for number in vector] for vector in vectors]

    def count_tokens(self, text: str) -> int | None:
        """See Served.count_tokens. By the model's own method, else by the folder's tokenizer.json."""
        return self._count(text) if self._count else None

    def warm_up(self) -> str:
        """See Served.warm_up. With the model's `example`: messages for a chat, else an input of `predict`."""
        example = getattr(self.model, "example", None)
        if example is None:
            return ""
        if "predict" in self.capabilities:
            self.predict([example])
        else:
            self.chat(example, {"max_tokens": 1})
        return "warmed up with the model's own example"

    def metadata(self) -> dict[str, Any]:
        """See Served.metadata. What the model's `metadata` attribute or method says."""
        said = getattr(self.model, "metadata", {})
        return dict(said() if callable(said) else said)


def load(config: EngineConfig, folder: str) -> Any:
    """The loaded `Model` of this folder. Refusal 65 if there's no such class or it lacks what it must have.

    `load(path)` may raise anything: whoever calls this says it. Before it, `settings` is set on the object.
    """
    if folder not in sys.path:
        sys.path.insert(0, folder)  # so that model.py can be in several files
    kind = getattr(_module(Path(folder) / FILE), CLASS, None)
    if not inspect.isclass(kind):
        raise Refusal(65, f"{FILE} has no class {CLASS}: see docs/model-py.md for what it must look like")
    model: Any = kind()
    model.settings = settings(config)
    if not callable(getattr(model, "load", None)):
        raise Refusal(65, f"the class {CLASS} in {FILE} has no method load(self, path)")
    model.load(folder)
    if not _capabilities(model):
        raise Refusal(65, f"the class {CLASS} in {FILE} has none of predict, chat, stream and embed")
    return model


def settings(config: EngineConfig) -> dict[str, Any]:
    """What a model may know of the endpoint that it serves."""
    options = config.options
    return {
        "alias": config.alias,
        "max_sequence_length": config.context_length,
        "batch_size": config.parallel,
        "threads": config.threads,
        "gpus": config.gpus,
        "cache": config.cache,
        "load_format": options.load_format,
        "data_type": options.data_type,
        "quantization": options.quantization,
        "tokenizer_type": options.tokenizer_type,
        "padding": options.padding,
    }


def joined(pieces: Iterator[str | Reply]) -> Reply:
    """The whole of a stream."""
    text, end = "", Reply("")
    for piece in pieces:
        if isinstance(piece, Reply):
            text, end = text + piece.text, piece
        else:
            text += piece
    return Reply(text, end.finish_reason, end.prompt_tokens, end.completion_tokens)


def _module(path: Path) -> ModuleType:
    spec = spec_from_file_location("model", path)
    if spec is None or spec.loader is None:
        raise Refusal(65, f"{path} is no Python module")
    module = module_from_spec(spec)
    sys.modules["model"] = module  # so that its own pickles and dataclasses find it
    spec.loader.exec_module(module)
    return module


def _capabilities(model: Any) -> tuple[str, ...]:
    has = {
        name for name in ("predict", "chat", "stream", "complete", "embed") if callable(getattr(model, name, None))
    }
    talks = bool(has & {"chat", "stream"})
    found = {
        "chat": talks,
        "completions": talks or "complete" in has,
        "embeddings": "embed" in has,
        "predict": "predict" in has,
    }
    return tuple(name for name, there in found.items() if there)


def _asked(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    try:
        return function(*args, **named)
    except ValueError as error:
        raise BadInput(colourless(str(error)) or "the model refused this input and did not say why") from error


def _pieces(pieces: Any) -> Iterator[str | Reply]:
    """Their iterator, closed when ours is closed."""
    iterator = iter(pieces)
    try:
        while True:
            try:
                piece = _asked(next, iterator)
            except StopIteration:
                return
            yield piece if isinstance(piece, str) else _reply(piece)
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def _reply(answer: Any) -> Reply:
    """A text, or a dict with what a Reply has."""
    if isinstance(answer, Reply):
        return answer
    if isinstance(answer, Mapping):
        known = {one.name: answer[one.name] for one in fields(Reply) if one.name in answer}
        return Reply(**{"text": "", **known})
    if not isinstance(answer, str):
        raise TypeError(f"a model answers text or a dict with one, not {type(answer).__name__}")
    return Reply(answer)


def _accepted(function: Callable[..., Any], params: Params) -> dict[str, Any]:
    """Those of the request's settings that this function takes: all of them if it has **params."""
    named = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in named.values()):
        return dict(params)
    return {name: value for name, value in params.items() if name in named}
