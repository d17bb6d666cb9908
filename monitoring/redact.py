"""Taking secret values out of text, and text into a shape that can be stored."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

SHORTEST = 4  # a shorter value would black out ordinary words and gives nothing away
LONGEST_LINE = 8_192  # characters
MASK = "[redacted]"
# Keys of ours and of the Hub are recognised by their shape, whoever printed them.
_keys = re.compile(r"\btir_[0-9a-f]{8}_[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{20,}")


@lru_cache(maxsize=512)
def _pattern(values: frozenset[str]) -> re.Pattern[str] | None:
    forms = {form for value in values for form in _forms(value)}
    if not forms:
        return None
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))


def _forms(value: str) -> set[str]:
    """The ways in which a value shows in a log: as it is, line by line, in base64 at each offset, in a URL."""
    lines = [line.strip() for line in value.splitlines()] or [value]
    plain = {part for part in [value, value.strip(), *lines] if len(part) >= SHORTEST}
    found = set(plain)
    for part in plain:
        found |= {quote(part, safe=""), repr(part)[1:-1]}
        found |= _in_base64(part.encode())
    return found


def _in_base64(raw: bytes) -> set[str]:
    """What stays the same of the value's base64 wherever it begins in a longer text, in both alphabets."""
    found = set()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        first = (0, 2, 3)[before]
        whole = (before + len(raw)) * 8 // 6  # a last character of fewer bits depends on what follows
        core = coded[first:whole]
        if len(core) >= SHORTEST + 2:
            found |= {core, core.replace("+", "-").replace("/", "_")}
    return found


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without secrets and without what PostgreSQL can't hold."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    pattern = _pattern(frozenset(secrets))
    if pattern is not None:
        text = pattern.sub(MASK, text)
    return _keys.sub(MASK, text)


def clean(text: str, secrets: Iterable[str] = ()) -> str:
    """The same, cut to a length that a page can show. Secrets go first, so that a cut can't leave half of one."""
    text = masked(text, secrets)
    if len(text) > LONGEST_LINE:
        return f"{text[:LONGEST_LINE]}… ({len(text) - LONGEST_LINE} more characters cut)"
    return text
