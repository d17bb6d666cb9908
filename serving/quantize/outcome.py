"""What a quantized model was found to keep, remembered for the next start with the same files and settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving.config import EngineConfig
from serving.log import say
from serving.quantize import agreement, calibration

# The options that answers depend on.
MATTERS = ("load_format", "data_type", "quantization", "calibration_dataset", "tokenizer_type", "padding")


def measured(
    config: EngineConfig,
    words: Sequence[object],
    answers: Callable[[], list[Any]] | None,
    quantize: Callable[[], None],
) -> float | None:
    """Quantize; the agreement of the answers before and after, None where there is nothing to ask.

    It is asked again only when a file of the model's, a setting that it depends on or a version among `words` is
    another than at an earlier start. Without a cache folder that is each start.
    """
    if answers is None:
        quantize()
        return None
    path = _path(config, words) if config.cache else None
    if (known := _read(path)) is not None:
        quantize()
        say("what the quantized model keeps was measured at an earlier start")
        return known
    original = answers()
    quantize()
    found = agreement.agreement(original, answers())
    _keep(path, found)
    return found


def _keep(path: Path | None, found: float) -> None:
    """Write it down, whole or not at all."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"agreement": found}), "utf-8")
    draft.replace(path)


def _path(config: EngineConfig, words: Sequence[object]) -> Path:
    """Named by a digest of all files, for a model's own code may read any of them."""
    folder = Path(config.model)
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    names = [str(one.relative_to(folder)) for one in files]
    options = [getattr(config.options, name) for name in MATTERS]
    settings = (config.engine, config.parallel, config.context_length, options)
    return Path(config.cache) / "quantized" / f"{calibration.digest(*files, words=(*words, settings, names))}.json"


def _read(path: Path | None) -> float | None:
    try:
        return float(json.loads(path.read_text("utf-8"))["agreement"]) if path else None
    except (FileNotFoundError, ValueError, KeyError):  # never written, or torn by a machine that went down
        return None
