"""How much of a model's answers a quantized form keeps: the accuracy that a threshold is compared with.

For each output over the whole dataset, original o and quantized q:
- labels (integers, booleans, texts): the share of values that are equal;
- scores of classes (rows of probabilities, or an output whose name has logit, prob, score or class in it): the
  share of rows, along the last axis, whose highest score is of the same class (top-1 agreement);
- anything else: 1 − ‖q − o‖ / ‖o‖ by Euclid's norm, and 0 where that would be below.
The model's figure is the lowest of its outputs'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.config import Refusal

SCORES = ("logit", "prob", "score", "class")


def agreement(original: Sequence[Any], quantized: Sequence[Any]) -> float:
    """The figure for these outputs of the same inputs, from 0 to 1."""
    names = list(original[0]) if isinstance(original[0], Mapping) else [""]
    return min(_output(name, _column(original, name), _column(quantized, name)) for name in names)


def check(found: float, threshold: float, what: str) -> None:
    """Refusal 65 with the figure if it misses the threshold."""
    if found < threshold:
        raise Refusal(
            65,
            f"{what} keeps {found:.4f} of the accuracy on the calibration dataset, not {threshold:g} as asked: "
            "lower the threshold, or serve the model as it is",
        )


def _column(outputs: Sequence[Any], name: str) -> list[np.ndarray[Any, Any]]:
    return [_array(one[name] if isinstance(one, Mapping) else one) for one in outputs]


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Mapping):  # a classifier's {class: probability}
        return np.asarray([value[key] for key in sorted(value)])
    return np.asarray(value)


def _output(name: str, original: list[np.ndarray[Any, Any]], quantized: list[np.ndarray[Any, Any]]) -> float:
    if any(one.shape != other.shape for one, other in zip(original, quantized, strict=True)):
        return 0.0
    if original[0].dtype.kind != "f":
        equal = np.concatenate([np.ravel(one == other) for one, other in zip(original, quantized, strict=True)])
        return float(equal.mean())
    if _scores(name, original):
        tops = [one.argmax(-1) == other.argmax(-1) for one, other in zip(original, quantized, strict=True)]
        return float(np.concatenate([np.ravel(top) for top in tops]).mean())
    whole = np.concatenate([np.ravel(one) for one in original]).astype(np.float64)
    error = np.concatenate([np.ravel(one) for one in quantized]).astype(np.float64) - whole
    if not np.isfinite(error).all():
        return 0.0
    norm = float(np.linalg.norm(whole))
    distance = float(np.linalg.norm(error))
    return max(0.0, 1.0 - distance / norm) if norm else float(distance == 0.0)


def _scores(name: str, outputs: list[np.ndarray[Any, Any]]) -> bool:
    if any(one.ndim == 0 or one.shape[-1] < 2 for one in outputs):
        return False
    if any(word in name.lower() for word in SCORES):
        return True
    return all(bool((one >= 0).all()) and np.allclose(one.sum(-1), 1.0, atol=1e-3) for one in outputs)
