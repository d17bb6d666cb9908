"""The calibration dataset: examples out of the model's own files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.config import EngineConfig, Refusal

MOST = 512  # examples; more add time and change nothing
KINDS = ".npz (arrays by input name, the first axis counts the examples) or .jsonl (one input of /predict a line)"


def file(config: EngineConfig) -> Path | None:
    """The dataset's file, None if none is named. Refusal 65 if it is not inside the model's folder."""
    named = config.options.calibration_dataset
    if not named:
        return None
    folder = Path(config.model) if Path(config.model).is_dir() else Path(config.model).parent
    found = folder / named
    if ".." in Path(named).parts or not found.is_file():
        raise Refusal(65, f"the calibration dataset {named} is not among the model's files")
    return found


def items(path: Path) -> list[Any]:
    """Its examples, as /predict takes them. Refusal 65 if it is of no kind that we read, or empty."""
    if path.suffix == ".jsonl":
        found = _lines(path)
    elif path.suffix == ".npz":
        found = _arrays(path)
    else:
        raise Refusal(65, f"the calibration dataset {path.name} must be {KINDS}")
    if not found:
        raise Refusal(65, f"the calibration dataset {path.name} is empty")
    return found


def digest(*files: Path | None, words: Sequence[object] = ()) -> str:
    """One name for these files' contents and these words."""
    whole = hashlib.sha256(repr(tuple(words)).encode())
    for one in files:
        if one is not None:
            with open(one, "rb") as read:
                whole.update(hashlib.file_digest(read, "sha256").digest())
    return whole.hexdigest()[:32]


def _lines(path: Path) -> list[Any]:
    found: list[Any] = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if len(found) == MOST:
                break
            try:
                found += [json.loads(line)] if line.strip() else []
            except ValueError as error:
                raise Refusal(65, f"line {number} of {path.name} is not JSON: {error}") from error
    return found


def _arrays(path: Path) -> list[Any]:
    import numpy as np  # noqa: PLC0415  a .jsonl needs none

    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name][:MOST] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise Refusal(65, f"the calibration dataset {path.name} cannot be read: {error}") from error
    lengths = {len(array) for array in found.values()}
    if len(lengths) > 1:
        raise Refusal(65, f"the arrays in {path.name} hold different numbers of examples")
    return [{name: array[index] for name, array in found.items()} for index in range(max(lengths, default=0))]
