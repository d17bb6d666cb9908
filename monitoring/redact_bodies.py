"""Taking out of a request's bodies what says who somebody is: before they are stored, never after.

Works on the strings of a JSON body, whose escapes would else hide what is looked for; also on JSON inside of a
string, and on a stream's text put together again, because its events part words anywhere. What is no JSON can't
be looked through with certainty, so nothing of it is kept. Patterns run in time linear in the text (RE2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson
import re2

from monitoring import redact

MASK = redact.MASK
DEEPEST = 64
# Digits with at most one separator between two of them: nine and more are a telephone number, from thirteen on a
# card's. Both are taken out without a check of what they are: a number too many does no harm.
BUILT_IN = (
    r"[\pL\pN._%+'-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+",
    r"\+?\(?\pN(?:[ ./()-]{0,2}\pN){8,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
    r"\b(?:sk|pk|rk|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{16,}",
)
TEXTS = ("content", "reasoning_content", "reasoning", "refusal", "text")


class NoPattern(ValueError):
    """Why a pattern can't be used, in words."""


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Any:
    """Raises NoPattern."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        found = re2.compile(pattern, options)
    except re2.error as problem:
        said = problem.args[0].decode() if problem.args and isinstance(problem.args[0], bytes) else str(problem)
        raise NoPattern(f"“{pattern}” is no regular expression of RE2: {said}.") from None
    if found.search("") is not None:
        raise NoPattern(f"“{pattern}” matches where there is nothing; give one that takes at least a character.")
    return found


class Redaction:
    """What is taken out for one endpoint: built-in patterns, its own, and the values of its project's secrets."""

    def __init__(self, patterns: Sequence[str] = (), secrets: Sequence[str] = ()) -> None:
        self.patterns = [compiled(pattern) for pattern in (*patterns, *BUILT_IN)]
        self.secrets = tuple(secrets)

    def text(self, text: str) -> str:
        text = redact.masked(text, self.secrets)
        for pattern in self.patterns:
            text = pattern.sub(MASK, text)
        return text

    def body(self, raw: bytes) -> str:
        """A JSON body as it may be stored; "" for none and for one that is no JSON."""
        try:
            found = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return ""
        return pretty(self.value(found))

    def stream(self, raw: bytes) -> str:
        """The same of a stream of events, as the texts that its choices added up to."""
        return pretty(self.value({"stream": put_together(raw)})) if raw else ""

    def value(self, value: Any, depth: int = 0) -> Any:
        if depth > DEEPEST:
            return MASK
        if isinstance(value, str):
            return self._string(value, depth)
        if isinstance(value, list):
            return [self.value(one, depth + 1) for one in value]
        if isinstance(value, dict):
            return {
                self.text(key): one if key == "created" and isinstance(one, int) else self.value(one, depth + 1)
                for key, one in value.items()
            }
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value if self.text(str(value)) == str(value) else MASK
        return value

    def _string(self, text: str, depth: int) -> str:
        if text.startswith("data:") and ";base64," in text[:200]:
            return f"[{text[5:200].partition(';')[0]}, {len(text):,} characters, not kept]"
        if text[:1] in ("{", "["):
            try:
                return orjson.dumps(self.value(orjson.loads(text), depth + 1)).decode()
            except orjson.JSONDecodeError:
                pass
        return self.text(text)


def pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def put_together(raw: bytes) -> list[dict[str, Any]]:
    """A stream's choices in order, each with its texts and tool calls whole."""
    choices: dict[int, dict[str, Any]] = {}
    for line in raw.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        try:
            event = orjson.loads(line[5:])
        except orjson.JSONDecodeError:
            continue  # [DONE]
        if not isinstance(event, dict):
            continue
        if "error" in event:
            choices.setdefault(-1, {})["error"] = event["error"]
        for choice in listed(event.get("choices")):
            if isinstance(choice, dict):
                index = choice.get("index")
                _add(choices.setdefault(index if isinstance(index, int) else 0, {}), choice)
    return [choices[index] for index in sorted(choices)]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _add(whole: dict[str, Any], choice: dict[str, Any]) -> None:
    delta = choice.get("delta")
    for part in (choice, delta if isinstance(delta, dict) else {}):
        for name in TEXTS:
            if isinstance(part.get(name), str):
                whole[name] = whole.get(name, "") + part[name]
        for call in listed(part.get("tool_calls")):
            _add_call(whole, call)
    if isinstance(choice.get("finish_reason"), str):
        whole["finish_reason"] = choice["finish_reason"]


def _add_call(whole: dict[str, Any], call: Any) -> None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return
    kept = whole.setdefault("tool_calls", {}).setdefault(str(call.get("index", 0)), {"name": "", "arguments": ""})
    for name in ("name", "arguments"):
        if isinstance(function.get(name), str):
            kept[name] += function[name]
