"""What a quantized model keeps is measured once for the same files and settings."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.config import EngineConfig, Options
from serving.quantize import outcome

SETTINGS = EngineConfig("pytorch", "model", "demo", parallel=8, options=Options(quantization="dynamic"))


class Module:
    """Something that answers, a little less well once it is quantized."""

    def __init__(self) -> None:
        self.asked = 0
        self.error = 0.0

    def answers(self) -> list[Any]:
        self.asked += 1
        return [3.0, 4.0 + self.error]

    def quantize(self) -> None:
        self.error = 0.5


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., tuple[float | None, int]]:
    """One start with these settings and this torch: the agreement, and how often the model was asked for it."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.py").write_text("original")

    def started(torch: str = "2.13", **settings: Any) -> tuple[float | None, int]:
        config = replace(SETTINGS, **{"model": str(model), "cache": str(tmp_path / "cache"), **settings})
        module = Module()
        found = outcome.measured(config, [torch], module.answers, module.quantize)
        assert module.error, "it is quantized at each start"
        return found, module.asked

    return started


def test_it_is_measured_once(start: Callable[..., tuple[float | None, int]], tmp_path: Path) -> None:
    assert start() == (0.9, 2)
    assert start() == (0.9, 0)
    assert start(alias="other", options=replace(SETTINGS.options, accuracy_threshold=0.99)) == (0.9, 0)
    (kept,) = (tmp_path / "cache" / "quantized").iterdir()
    assert json.loads(kept.read_text()) == {"agreement": 0.9}
    kept.write_text("")
    assert start() == (0.9, 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"torch": "2.14"},
        {"parallel": 4},
        {"context_length": 64},
        {"options": replace(SETTINGS.options, quantization="static")},
        {"options": replace(SETTINGS.options, data_type="float16")},
    ],
    ids=str,
)
def test_it_is_measured_again_for_another_setting(
    start: Callable[..., tuple[float | None, int]], changed: dict[str, Any]
) -> None:
    start()
    assert start(**changed) == (0.9, 2)


def test_it_is_measured_again_for_other_files(
    start: Callable[..., tuple[float | None, int]], tmp_path: Path
) -> None:
    start()
    (tmp_path / "model" / "model.py").write_text("mended")
    assert start() == (0.9, 2)
    (tmp_path / "model" / "model.py").rename(tmp_path / "model" / "moved.py")
    assert start() == (0.9, 2)


def test_it_is_measured_at_each_start_without_a_cache(start: Callable[..., tuple[float | None, int]]) -> None:
    assert [start(cache=""), start(cache="")] == [(0.9, 2), (0.9, 2)]


def test_nothing_is_measured_without_examples(tmp_path: Path) -> None:
    module = Module()
    config = replace(SETTINGS, model=str(tmp_path), cache=str(tmp_path / "cache"))
    assert outcome.measured(config, [], None, module.quantize) is None
    assert (module.error, list(tmp_path.iterdir())) == (0.5, [])
