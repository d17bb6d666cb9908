"""Whoever imports in these tests, and what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from endpoints import bell, importing
from endpoints.models import RegisteredModel, VersionImport
from tests import make
from tests.hub import Hub, Repo
from tests.model_files import TENSORS, gguf

FILE = "tiny.Q4_K_M.gguf"
WIDE = [*TENSORS, ("blk.1.ffn_up.weight", (64, 8192), "F16")]
LARGE = gguf(None, WIDE)
REPO = Repo({"README.md": b"# Tiny", FILE: LARGE})
TOKEN = "hf_member-of-the-lab"
MODEL_PY = b"class Model:\n    def load(self, path): ...\n    def predict(self, inputs): return inputs\n"


class Died(BaseException):
    """A worker's kill: nothing of ours catches it."""


class Import:
    """Alice, who imports into “tiny”; workers that run when a test says so."""

    def __init__(self, client: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = make.project()
        self.model = RegisteredModel.open(self.project, "tiny", by=make.user("alice"))
        self.client, self.hub, self.ahead = client, hub, timedelta(0)
        client.force_login(make.user("alice"))
        monkeypatch.setattr(bell, "send", lambda *_, **__: True)

    url = "/projects/alpha/models/tiny/import/"

    def post(self, **answers: str) -> Any:
        given = {"kind": "huggingface", "shown": "huggingface", "model_id": "lab/tiny", "revision": "main"}
        return self.client.post(self.url, given | answers)

    def begun(self, **answers: str) -> VersionImport:
        answer = self.post(**answers)
        assert answer.status_code == 302, answer.content.decode()
        return VersionImport.objects.latest("created_at")

    def refused(self, **answers: str) -> str:
        answer = self.post(**answers)
        assert answer.status_code == 422
        return str(answer.content.decode())

    def clock(self) -> Any:
        return timezone.now() + self.ahead

    def run(self, one: VersionImport) -> VersionImport:
        importing.run(str(one.pk), clock=self.clock)
        return VersionImport.objects.select_related("version", "draft").get(pk=one.pk)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        _, secret = make.key(self.project, "manage")
        options = {"headers": {"Authorization": f"Bearer {secret}"} | headers, "content_type": "application/json"}
        return getattr(Client(), method)(f"/api/v1/models/tiny/imports{path}", body, **options)
