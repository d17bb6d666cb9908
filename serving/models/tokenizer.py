"""A folder's tokenizer.json: how many tokens a text is, and whether it is of the kind that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from serving.config import Refusal

Counter = Callable[[str], int] | None
PLACES = ("tokenizer/tokenizer.json", "tokenizer.json", "weights/tokenizer.json")
KINDS = {"bpe": {"BPE"}, "wordpiece": {"WordPiece"}, "sentencepiece": {"Unigram", "BPE"}}


def find(folder: str) -> Path | None:
    """The tokenizer.json of a model folder."""
    return next((Path(folder) / place for place in PLACES if (Path(folder) / place).is_file()), None)


def counter(folder: str) -> Counter:
    """A function that counts tokens, None if the folder has no tokenizer.json or its library is not here."""
    file = find(folder)
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  only a model that has a tokenizer pays for it
    except ImportError:
        return None
    if file is None:
        return None
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def check(folder: str, wanted: str) -> None:
    """Refusal 65 if the folder's tokenizer is of another kind than the one asked for; "auto" takes any."""
    file = find(folder)
    if wanted == "auto" or file is None:
        return
    try:
        found = str(json.loads(file.read_text("utf-8"))["model"]["type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal(65, f"{file.name} is no tokenizer: {error}") from error
    if found not in KINDS[wanted]:
        raise Refusal(65, f"the tokenizer type asked for is {wanted}, and the one in {file.name} is {found}")
