from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from tests.endpoints.imports.importer import FILE, LARGE, REPO, TOKEN, Import
from tests.hub import Hub, Repo


@pytest.fixture
def hub(settings: Any) -> Iterator[Hub]:
    gated = Repo({FILE: LARGE}, gated="manual")
    with Hub({"lab/tiny": REPO, "lab/gated": gated}, tokens={TOKEN: {"lab/gated"}}) as running:
        settings.HF_ENDPOINT = running.url
        yield running


@pytest.fixture
def tiny(client: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Import:
    return Import(client, hub, monkeypatch)
