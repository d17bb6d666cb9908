"""Tokens of an answer: what the engine counted, else a labelled estimate from the text that was delivered.

An answer that carried text never counts as nothing: an engine that leaves its usage out would be free.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

import orjson

CHARS_PER_TOKEN = 4
EDGE_BYTES = 16 * 1024
MOST_PIECES = 200_000  # of a request; to look at more would keep all others waiting
BLOCK = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')  # inside of a text its quotes are escaped
READ = ("messages", "prompt", "input", "instructions", "tools", "query", "documents")  # by the model
MOST = 10**9  # tokens of one answer that make sense; the sums of far more would find no room in the database


class Usage(NamedTuple):
    """Tokens of one answer; `estimated` when nobody counted them and they follow from lengths of text."""

    prompt: int = 0
    completion: int = 0
    estimated: bool = False


NOTHING = Usage()
made = tuple.__new__  # of a named tuple's class: what its own __new__ does, without a call of Python's


def usage_of(block: Any) -> Usage | None:
    """The usage block of an answer or of a stream's chunk; None when it is none or makes no sense."""
    if not isinstance(block, dict):
        return None
    prompt, completion = block.get("prompt_tokens"), block.get("completion_tokens") or 0
    if prompt is None:  # as the responses API says it
        prompt, completion = block.get("input_tokens"), block.get("output_tokens") or 0
    if prompt is None:  # as vLLM says it of a reranking, which only reads
        prompt, completion = block.get("total_tokens"), 0
    if type(prompt) is int and type(completion) is int and 0 <= prompt <= MOST and 0 <= completion <= MOST:
        return made(Usage, (prompt, completion, False))
    return None


def edges(text: bytes) -> bytes:
    """The parts of a long answer in which engines say its usage: before the data or behind it."""
    return text[:EDGE_BYTES] + text[-EDGE_BYTES:]


def usage_in(part: bytes) -> Usage | None:
    """What is said in an answer of which only parts are here."""
    for found in BLOCK.finditer(part):
        try:
            usage = usage_of(orjson.loads(found[1]))
        except orjson.JSONDecodeError:
            continue
        if usage is not None:
            return usage
    return None


def is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def estimated(*, prompt_chars: int, completion_chars: int) -> Usage:
    """Four characters a token, rounded up, on either side."""
    prompt, completion = -(-prompt_chars // CHARS_PER_TOKEN), -(-completion_chars // CHARS_PER_TOKEN)
    return Usage(prompt, completion, estimated=True)


def prompt_chars(request: dict[str, Any]) -> int:
    """How much text a request asks the model to read: messages, prompt or input, with tool definitions."""
    return sum(len(text) for name in READ for text in texts(request.get(name)))


def prompt_tokens(request: dict[str, Any]) -> int:
    """The same in tokens, estimated."""
    return -(-prompt_chars(request) // CHARS_PER_TOKEN)


def most_generated(request: dict[str, Any]) -> int:
    """How many tokens a request lets each answer have at most; 0 where it doesn't say."""
    most = request.get("max_completion_tokens") or request.get("max_tokens") or request.get("max_output_tokens")
    return most if is_count(most) else 0


def contexts(request: dict[str, Any]) -> int:
    """How many contexts a request may fill: one, but for a batch of texts and for several answers to each."""
    several = 1
    for name in ("prompt", "input"):
        part = request.get(name)
        if isinstance(part, list) and part and isinstance(part[0], str | list):
            several = max(several, len(part))
    documents, answers = request.get("documents"), request.get("n")
    if isinstance(documents, list):
        several = max(several, len(documents))
    return several * answers if is_count(answers) and answers else several


def texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys left out; a number (a prompt of token ids) counts as one token.

    Walks with a list of its own: how deep a client nests must not matter, nor into how many pieces it cuts: of a
    value of more than `MOST_PIECES` only so many are looked at, which is more than any context holds.
    """
    left = [value]
    for _ in range(MOST_PIECES):
        if not left:
            return
        match left.pop():
            case str(text):
                yield text
            case list(items):
                left.extend(items)
            case dict(members):
                left.extend(members.values())
            case int():
                yield " " * CHARS_PER_TOKEN


def delivered_chars(answer: dict[str, Any]) -> int:
    """How much generated text an answer or one chunk carries, reasoning and tool calls included."""
    choices = answer.get("choices")
    if not isinstance(choices, list):
        delta, output = (
            answer.get("delta"),
            answer.get("output"),
        )  # of the responses API: of a chunk, of a whole one
        return (
            len(delta)
            if isinstance(delta, str)
            else sum(map(output_chars, output if isinstance(output, list) else ()))
        )
    return sum(choice_chars(choice) for choice in choices if isinstance(choice, dict))


def output_chars(item: Any) -> int:
    content = item.get("content") if isinstance(item, dict) else None
    parts = content if isinstance(content, list) else ()
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return sum(len(text) for text in texts if isinstance(text, str))


def choice_chars(choice: dict[str, Any]) -> int:
    text = choice.get("text")
    count = len(text) if isinstance(text, str) else 0
    said = choice.get("delta") or choice.get("message")
    if not isinstance(said, dict):
        return count
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        text = said.get(name)
        if isinstance(text, str):
            count += len(text)
    calls = said.get("tool_calls")
    return count + sum(map(call_chars, calls)) if isinstance(calls, list) else count


def call_chars(call: Any) -> int:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return 0
    return sum(len(part) for part in (function.get("name"), function.get("arguments")) if isinstance(part, str))
