"""JSON to tensors and back, with a sentence for whatever does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.models.base import BadInput

Dim = int | str | None  # a number, or a name or None where any length will do


@dataclass(frozen=True)
class Tensor:
    """One input or output: the shape is that of one item, without the batch."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...]

    def shown(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"name": self.name, "dtype": _word(self.dtype), "shape": list(self.shape)}

    def parse(self, value: Any) -> np.ndarray[Any, Any]:
        """The tensor in this JSON value. BadInput says by the input's name what is wrong."""
        try:
            found = np.asarray(value)
        except ValueError as error:
            raise BadInput(f"{self.name}: rows of different lengths are no tensor") from error
        if found.dtype == object:
            raise BadInput(f"{self.name}: only numbers, booleans and texts make a tensor")
        self._check_kind(found)
        self._check_shape(found.shape)
        return found.astype(self.dtype)

    def _check_kind(self, found: np.ndarray[Any, Any]) -> None:
        if found.size == 0:
            return
        wanted, given = self.dtype.kind, found.dtype.kind
        fits = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "O": "U"}
        if given not in fits.get(wanted, wanted):
            raise BadInput(f"{self.name}: must be {_word(self.dtype)}, not {_word(found.dtype)}")
        if wanted in "iu":
            bounds = np.iinfo(self.dtype)
            if found.min() < bounds.min or found.max() > bounds.max:
                raise BadInput(f"{self.name}: {_word(self.dtype)} holds {bounds.min} to {bounds.max}")

    def _check_shape(self, given: Sequence[int]) -> None:
        fits = len(given) == len(self.shape) and all(
            not isinstance(wanted, int) or wanted == found for wanted, found in zip(self.shape, given, strict=True)
        )
        if not fits:
            raise BadInput(f"{self.name}: must have the shape {_shape(self.shape)}, not {_shape(given)}")


def named(tensors: Sequence[Tensor], item: Any) -> dict[str, np.ndarray[Any, Any]]:
    """One item's tensors by input name; with a single input its bare value does. BadInput says what is wrong."""
    names = [tensor.name for tensor in tensors]
    if not isinstance(item, dict):
        if len(tensors) != 1:
            raise BadInput(f"an input must be an object with {', '.join(names)}")
        item = {names[0]: item}
    if missing := [name for name in names if name not in item]:
        raise BadInput(f"missing: {', '.join(missing)}")
    if unknown := sorted(set(item) - set(names)):
        raise BadInput(f"there is no input {', '.join(map(str, unknown))}; there is {', '.join(names)}")
    return {tensor.name: tensor.parse(item[tensor.name]) for tensor in tensors}


def _word(dtype: np.dtype[Any]) -> str:
    return {"O": "string", "U": "string"}.get(dtype.kind, dtype.name)


def _shape(shape: Sequence[Dim]) -> str:
    return f"[{', '.join('any' if one is None else str(one) for one in shape)}]"
