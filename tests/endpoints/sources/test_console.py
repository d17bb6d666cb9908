"""A registered model on a machine that doesn't share the console's disk: fetched from the console by a token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from endpoints.file_pass import pass_for
from endpoints.models import Endpoint, ModelVersion, Region
from endpoints.sources import SourceProblem, source_for
from endpoints.sources.download import PIECE
from endpoints.workloads import command_of
from tests import make
from tests.endpoints.steering import register_model
from tests.front import Fault, Front
from tests.model_files import gguf

CONTENT = gguf() + bytes(2_000_000)


@pytest.fixture
def version(db: None) -> ModelVersion:
    return register_model(CONTENT, facts=False)


@pytest.fixture
def endpoint(version: ModelVersion) -> Endpoint:
    made = make.endpoint()
    found = version.files[0]
    resolved = {"commit": "1", "file": found["path"], "files": [found["path"]], "facts": None}
    made.revisions.update(resolved=resolved)
    return made


def ask(token: str, name: str, asked: str = "") -> Any:
    return Client().get(f"/model-files/{name}", headers={"Authorization": f"Bearer {token}", "Range": asked})


def test_a_file_opens_to_the_token_of_a_living_endpoint_only(endpoint: Endpoint, version: ModelVersion) -> None:
    path, good = version.files[0]["path"], pass_for(endpoint.revisions.get())
    assert ask(good, path).status_code == 200
    assert [ask(token, path).status_code for token in ("", "made-up", good[:-2])] == [401] * 3
    assert [ask(good, name).status_code for name in ("other.gguf", "../../secret", "%2e%2e/secret")] == [404] * 3
    Endpoint.objects.update(deleted_at=timezone.now())
    assert ask(good, path).status_code == 401


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=100-", 206, 100, len(CONTENT)),
        (f"bytes={len(CONTENT) - 1}-{len(CONTENT) + 5}", 206, len(CONTENT) - 1, len(CONTENT)),
        ("bytes=9-5", 416, 0, 0),
        (f"bytes={len(CONTENT)}-", 416, 0, 0),
        ("lines=1-2", 200, 0, len(CONTENT)),
    ],
)
def test_ranges_are_answered_as_http_says(
    endpoint: Endpoint, version: ModelVersion, asked: str, status: int, first: int, last: int
) -> None:
    answer = ask(pass_for(endpoint.revisions.get()), version.files[0]["path"], asked)
    assert answer.status_code == status
    if status != 416:
        assert answer.getvalue() == CONTENT[first:last]
        assert answer["Content-Length"] == str(last - first)


@pytest.mark.django_db(transaction=True)
def test_a_fetch_goes_on_after_a_cut_and_ends_with_the_endpoint(
    endpoint: Endpoint, version: ModelVersion, live_server: Any, tmp_path: Path
) -> None:
    path = version.files[0]["path"]
    with Front(live_server.url) as front:
        Region.objects.update(config={"console_url": front.url})
        command = command_of(Endpoint.objects.get(), endpoint.revisions.get(), fetches=True)
        assert command.model == ""
        assert command.fetch is not None
        assert command.credential not in str(command), "a token has no place in a log"
        source = source_for(command.fetch, store=tmp_path, token=command.credential, hub="")
        front.fault(Fault(path, cut_after=1_500_000))
        seen: list[int] = []
        fetched = source.fetch(tmp_path, lambda done, _: seen.append(done), [path])
        assert fetched.read_bytes() == CONTENT
        assert sum(front.sent(path)) < len(CONTENT) + PIECE, "what had come was asked for again"
        assert source.check().facts is not None

        Endpoint.objects.update(deleted_at=timezone.now())
        other = replace(source, timeout=5.0)  # type: ignore[type-var]
        with pytest.raises(SourceProblem, match="no longer serves"):
            other.read(path, 0, 4)
