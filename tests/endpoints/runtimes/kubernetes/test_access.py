"""A kubeconfig that is wrong: an outage in words, which repeat none of the secrets in it."""

import traceback
from pathlib import Path

import pytest

from endpoints.runtimes.base import Unavailable
from tests.endpoints.runtimes.kubernetes.conftest import Region

HEAD = """apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: here, context: {cluster: here, user: console}}]
"""


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ("[{name: console, user: {token: null, client-key-data: hush}}]", r"Expected key token in .*/user$"),
        ("[{name: console, user: {token: hush]}]", r"expected ',' or '}'.*line 6"),
        ("[{name: console, user: {client-certificate-data: x, client-key-data: hush}}]", "base64"),
    ],
    ids=["no token", "no YAML", "no certificate"],
)
def test_what_is_wrong_is_said_without_what_stands_there(
    region: Region, tmp_path: Path, users: str, words: str
) -> None:
    path = tmp_path / "wrong"
    path.write_text(f"{HEAD}users: {users}\n", encoding="utf-8")
    with pytest.raises(Unavailable, match=f"access can't be read: .*{words}") as told:
        region(kubeconfig=str(path)).observe()
    assert "hush" not in "".join(traceback.format_exception(told.value))
