"""A Hub with one of each kind of repository, and the way to ask it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import SourceProblem, source_for
from endpoints.sources.huggingface import HuggingFaceSource
from tests.hub import Hub, Repo
from tests.model_files import TENSORS, gguf

SMALL = gguf()
LARGE = gguf(None, [*TENSORS, ("blk.1.ffn_up.weight", (64, 8192), "F16")])
SHARDS = [
    gguf({"split.no": 0, "split.count": 2}),
    gguf({"split.no": 1}, [("blk.1.attn_q.weight", (64, 64), "F16")], without=["general.architecture"]),
]
REPOS = {
    "lab/tiny-GGUF": Repo({"README.md": b"hi", "tiny.Q8_0.gguf": SMALL, "tiny.Q4_K_M.gguf": LARGE}),
    "lab/split-GGUF": Repo({f"big-0000{n}-of-00002.gguf": data for n, data in enumerate(SHARDS, 1)}),
    "lab/tiny": Repo({"config.json": b"{}", "model.safetensors": b"weights"}),
    "lab/private": Repo({"tiny.gguf": SMALL}, private=True),
    "lab/gated": Repo({"tiny.gguf": SMALL}, gated="manual"),
    "lab/broken": Repo({"broken.gguf": b"<!DOCTYPE html>" + b" " * 999}),
}
TOKENS = {"hf_member": {"lab/private", "lab/gated"}, "hf_stranger": set[str]()}

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

Ask = Callable[..., HuggingFaceSource]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(REPOS, tokens=TOKENS) as hub:
        yield hub


@pytest.fixture
def ask(hub: Hub, tmp_path: Path) -> Ask:
    """`ask("lab/tiny-GGUF", token=…, revision=…, file=…)`: a source at the hub of the test that soon gives up."""

    def source(model_id: str, *, token: str | None = None, url: str = "", **spec: Any) -> HuggingFaceSource:
        settings = {"kind": "huggingface", "model_id": model_id, "revision": "main"} | spec
        found = source_for(settings, store=tmp_path, token=token, hub=url or hub.url)
        assert isinstance(found, HuggingFaceSource)
        return replace(found, timeout=20.0, stall=20.0, patience=2)

    return source


def ignore(done: int, total: int) -> None:
    """Nobody watches."""


def problem(act: Callable[[], Any]) -> tuple[str, str, str]:
    """Code, field and message of the problem that this ends with; none may tell a secret."""
    with pytest.raises(SourceProblem) as caught:
        act()
    assert SECRET not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)
    return caught.value.code, caught.value.field, caught.value.message
