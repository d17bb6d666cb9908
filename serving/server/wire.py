"""JSON in and out, numpy's and torch's tensors included."""

from __future__ import annotations

from typing import Any

import orjson

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def dumps(value: Any) -> bytes:
    """The JSON of this value; null for a number that is none, or infinite. TypeError for what JSON can't hold."""
    try:
        return orjson.dumps(value, default=_plain, option=OPTIONS)
    except orjson.JSONEncodeError as error:
        raise TypeError(f"the model's answer is no JSON: {error}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON")


def loads(text: bytes) -> Any:
    """The value of this JSON. ValueError says at which character it is none."""
    return orjson.loads(text)
