"""OpenAI's requests and answers: what is read from a body, and the JSON that goes back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.models.base import Message, Reply
from serving.server.errors import Wrong

OURS = {"model", "messages", "prompt", "input", "stream", "stream_options", "n", "user", "best_of", "echo"}
RANGES = {"temperature": (0, 2), "top_p": (0, 1), "max_tokens": (1, 1 << 20), "top_k": (-1, 1 << 20)}


@dataclass(frozen=True)
class Asked:
    """One request to write text: `messages` for a chat, else `prompt`."""

    params: Mapping[str, Any]
    streamed: bool
    wants_usage: bool
    messages: Sequence[Message] = ()
    prompt: str = ""
    chat: bool = True
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def text(self) -> str:
        """All that the model reads, for counting."""
        return self.prompt or "\n".join(str(message["content"]) for message in self.messages)


def chat(body: Any) -> Asked:
    """The chat in this body. Wrong 400 names the field that is none."""
    body = _object(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list with at least one message")
    return Asked(messages=[_message(one) for one in messages], **_common(body))


def completion(body: Any) -> Asked:
    """The completion in this body. Wrong 400 names the field that is none."""
    body = _object(body)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise _wrong("prompt", "must be one text")
    return Asked(prompt=prompt, chat=False, **_common(body))


def texts(body: Any) -> list[str]:
    """The texts to embed. Wrong 400 if there are none."""
    given = _object(body).get("input")
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise _wrong("input", "must be a text or a list of texts")
    return found


def answer(asked: Asked, alias: str, reply: Reply) -> dict[str, Any]:
    """The whole answer. `usage` is there only where it is known."""
    message = {"message": {"role": "assistant", "content": reply.text}} if asked.chat else {"text": reply.text}
    choice = {"index": 0, **message, "finish_reason": reply.finish_reason, "logprobs": None}
    return {**_head(asked, alias, streamed=False), "choices": [choice], **usage(reply)}


def chunk(asked: Asked, alias: str, text: str = "", *, first: bool = False, end: str = "") -> dict[str, Any]:
    """One event of a stream: its first, a piece of text, or its end with the reason."""
    piece: dict[str, Any] = {"text": text}
    if asked.chat:
        role = {"role": "assistant", "content": ""} if first else {}
        piece = {"delta": role if first or end else {"content": text}}
    choice = {"index": 0, **piece, "finish_reason": end or None}
    return {**_head(asked, alias, streamed=True), "choices": [choice]}


def last(asked: Asked, alias: str, reply: Reply) -> dict[str, Any]:
    """The event with the usage."""
    return {**_head(asked, alias, streamed=True), "choices": [], **usage(reply)}


def usage(reply: Reply) -> dict[str, Any]:
    """{"usage": …}, or nothing where a count is not known."""
    if reply.prompt_tokens is None or reply.completion_tokens is None:
        return {}
    return {
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        }
    }


def _head(asked: Asked, alias: str, *, streamed: bool) -> dict[str, Any]:
    kind = "text_completion" if not asked.chat else "chat.completion.chunk" if streamed else "chat.completion"
    identity = f"chat{asked.id}" if asked.chat else asked.id
    return {"id": identity, "object": kind, "created": asked.created, "model": alias}


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Wrong(400, "the body must be a JSON object", code="invalid_body")
    return body


def _common(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("n") not in {None, 1}:
        raise _wrong("n", "must be 1: this server writes one answer")
    params = {name: value for name, value in body.items() if name not in OURS and value is not None}
    if "max_completion_tokens" in params:
        params["max_tokens"] = params.pop("max_completion_tokens")
    for name, (low, high) in RANGES.items():
        value = params.get(name, low)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise _wrong(name, f"must be a number between {low} and {high}")
    options = body.get("stream_options") or {}
    return {
        "params": params,
        "streamed": body.get("stream") is True,
        "wants_usage": isinstance(options, dict) and options.get("include_usage") is True,
    }


def _message(one: Any) -> dict[str, Any]:
    """A message whose content is one text: parts of text are joined. Wrong 400 for any other part."""
    if not isinstance(one, dict) or not isinstance(one.get("role"), str):
        raise _wrong("messages", "each must be an object with a role and a content")
    content = one.get("content")
    if isinstance(content, list):
        content = "".join(_part(one) for one in content)
    if content is not None and not isinstance(content, str):
        raise _wrong("messages", "a content must be a text or a list of parts")
    return {**one, "content": content or ""}


def _part(one: Any) -> str:
    text = one.get("text") if isinstance(one, dict) and one.get("type") == "text" else None
    if not isinstance(text, str):
        raise _wrong("messages", "this server reads text only")
    return text


def _wrong(param: str, words: str) -> Wrong:
    return Wrong(400, f"{param} {words}", code="invalid_value", param=param)
