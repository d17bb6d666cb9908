"""What the server asks of a model, whatever stands behind it; docs/model-py.md tells a model's author."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]  # "role" and "content", as OpenAI's API has them
Params = Mapping[str, Any]  # what a request says beside its messages: temperature, max_tokens, stop, …


class BadInput(ValueError):
    """The request can't be answered as it is; `str()` tells its sender what is wrong and what would be right."""


@dataclass(frozen=True)
class Reply:
    """A text and how it ended. A count is None where nobody can tell: it is left out then, never 0."""

    text: str
    finish_reason: str = ""  # "stop" or "length"; "" leaves it to the server
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def _lacking(what: str) -> BadInput:
    return BadInput(f"This model can't {what}. GET /v1/models says what it can.")


class Served:
    """One loaded model. Its methods are called from worker threads, several at once if `thread_safe`.

    What a kind of model can't do it leaves as it stands here: refused in words.
    """

    thread_safe = True
    by_stream = True  # whether a whole chat is made by `stream`, which can be stopped in the middle, not by `chat`
    capabilities: Sequence[str] = ()  # of "chat", "completions", "embeddings", "predict"

    def predict(self, inputs: list[Any]) -> list[Any]:
        """One JSON-ready output for each input, in order. BadInput fails the item, or the batch to be split."""
        raise _lacking("answer inputs (predict)")

    def chat(self, messages: Sequence[Message], params: Params) -> Reply:
        """The assistant's next message."""
        raise _lacking("chat")

    def stream(self, messages: Sequence[Message], params: Params) -> Iterator[str | Reply]:
        """The same in pieces; a Reply at the end may carry counts. `close()` on it stops the work."""
        raise _lacking("chat in pieces")

    def complete(self, prompt: str, params: Params) -> Iterator[str | Reply]:
        """The text after this one, in pieces."""
        raise _lacking("complete texts")

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text, in order."""
        raise _lacking("embed texts")

    def count_tokens(self, text: str) -> int | None:
        """How many tokens this is, None where there is no tokenizer."""
        return None

    def warm_up(self) -> str:
        """Work once as a request would make it work; a sentence for the log, "" if there is nothing to try."""
        return ""

    def metadata(self) -> dict[str, Any]:
        """What /metadata shows beside the common facts."""
        return {}
