"""A wrong config is one clear sentence and exit code 64, never a guess."""

import json
from pathlib import Path
from typing import Any

import pytest

from serving import config
from serving.config import EngineConfig, Refusal

GOOD = {"engine": "llama.cpp", "model": "/models/tiny.gguf", "alias": "demo"}


def refused(**changes: Any) -> str:
    with pytest.raises(Refusal) as caught:
        config.parsed(json.dumps(GOOD | changes))
    assert caught.value.code == 64
    return str(caught.value)


def test_three_keys_are_enough() -> None:
    assert config.parsed(json.dumps(GOOD)) == EngineConfig("llama.cpp", "/models/tiny.gguf", "demo")


def test_every_setting_arrives() -> None:
    given = GOOD | {
        "host": "127.0.0.1",
        "port": 8081,
        "context_length": 4096,
        "parallel": 4,
        "kv_cache_type": "q8_0",
        "threads": 3,
        "threads_http": 12,
        "log_level": "DEBUG",
    }
    assert config.parsed(json.dumps(given)) == EngineConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65_536),
        ("context_length", 0),
        ("parallel", 0),
        ("parallel", 257),
        ("threads", 0),
        ("threads_http", -1),
    ],
)
def test_a_number_out_of_range_names_the_range(name: str, value: int) -> None:
    words = refused(**{name: value})
    assert words.startswith(f"{name} must be between")
    assert words.endswith(f"not {value}")


@pytest.mark.parametrize("name", ["engine", "kv_cache_type", "log_level"])
def test_an_unknown_choice_names_the_choices(name: str) -> None:
    assert f"{name} must be one of" in refused(**{name: "nonsense"})


@pytest.mark.parametrize("name", ["model", "alias", "host"])
def test_an_empty_text_is_refused(name: str) -> None:
    assert refused(**{name: "  "}) == f"{name} must not be empty"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("context_length", "2048", "context_length must be int, not str"),
        ("context_length", 2048.5, "context_length must be int, not float"),
        ("parallel", True, "parallel must be int, not bool"),
        ("alias", None, "alias must be str, not NoneType"),
    ],
)
def test_a_wrong_type_is_never_bent_into_shape(name: str, value: object, words: str) -> None:
    assert refused(**{name: value}) == words


def test_an_unknown_key_is_refused_not_ignored() -> None:
    assert refused(contxt_length=4096) == "unknown key in the config: contxt_length"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Refusal, match="missing in the config: alias, model"):
        config.parsed('{"engine": "llama.cpp"}')


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="the config"):
        config.parsed(text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot read the config"):
        config.read(str(tmp_path / "none.json"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(Refusal, match="cannot read the config"):
        config.read(str(tmp_path / "binary"))
