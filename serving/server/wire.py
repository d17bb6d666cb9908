"""JSON in and out, tensors of numpy, torch and TensorFlow included."""

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
    if hasattr(value, "numpy"):
        return value.numpy()  # TensorFlow's
    if isinstance(value, bytes):
        return value.decode()  # as TensorFlow has texts
    raise TypeError(f"a {type(value).__name__} is no JSON")


def loads(text: bytes) -> Any:
    """The value of this JSON. ValueError says at which character it is none."""
    return orjson.loads(text)
