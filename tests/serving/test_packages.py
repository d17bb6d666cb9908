"""Why a model's own packages are not there: in so few words that all who pass them on keep the cause."""

from pathlib import Path

import pytest

from serving.config import EngineConfig, Refusal
from serving.models import packages

PASSED_ON = 400  # characters, by which a cluster's runtime cuts what an instance said last


def test_a_refusal_names_the_package_and_the_index_that_was_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"CONFIG_FILE": "/dev/null", "INDEX_URL": "http://127.0.0.1:1/simple", "RETRIES": "2"}
    for name in ("EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CONSTRAINT"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    (tmp_path / packages.FILE).write_text("no-such-part==3\n")
    config = EngineConfig("python", str(tmp_path), "demo", packages=True, cache=str(tmp_path / "cache"))
    with pytest.raises(Refusal) as refused:
        packages.install(config)
    kept = f"exit code 65: {refused.value}"[:PASSED_ON]
    assert "an index was not reached: NewConnectionError('Failed to establish a new connection" in kept
    assert "No matching distribution found for no-such-part==3" in kept
