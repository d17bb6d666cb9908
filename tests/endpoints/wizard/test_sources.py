"""Every other place of models: refused at its field, reached for real, with credentials seen nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils.html import escape

from accounts.models import Project
from endpoints.models import Draft, Endpoint, Secret
from endpoints.validation import spec_from
from tests import make, model_files
from tests.certificates import certificate, context
from tests.endpoints.wizard.test_limits import errors_of, wish
from tests.endpoints.wizard.way import Way
from tests.front import Front
from tests.git_host import GitHost
from tests.s3_host import s3_bucket
from tests.ssh_host import SshHost

pytestmark = pytest.mark.django_db
TOKEN = "glpat-not-a-real-token-of-anybody"
MODEL_PY = b"class Model:\n    def load(self, path): ...\n    def predict(self, inputs): return inputs\n"


def store(project: Project, name: str, value: str) -> None:
    Secret.store(project, name, value, by=make.user("alice"))


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> GitHost:
    host = GitHost(tmp_path_factory.mktemp("git"))
    host.make("lab/tiny")
    host.commit("lab/tiny", {"tiny.gguf": model_files.gguf(), "own/model.py": MODEL_PY, "bad/x.txt": b"hi"})
    host.token = TOKEN
    return host


@pytest.fixture
def git(repositories: GitHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a repository that wants a token, over https."""
    tls = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls))
    with Front(door=repositories, tls=context(tls)) as front:
        repositories.url = front.url
        yield f"{front.url}/lab/tiny.git"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an S3 service with a model in the bucket “models”."""
    with s3_bucket({"tiny/tiny.gguf": model_files.gguf()}) as client:
        yield client.meta.endpoint_url


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"kind": "git"}, "url"),
        ({"kind": "git", "url": "http://git.example.com/m.git"}, "url"),
        ({"kind": "git", "url": "https://bob:secret@git.example.com/m.git"}, "url"),
        ({"kind": "git", "url": "file:///etc"}, "url"),
        ({"kind": "git", "url": "--upload-pack=x"}, "url"),
        ({"kind": "git", "url": "https://git.example.com/m.git", "revision": "-x"}, "revision"),
        ({"kind": "git", "url": "https://git.example.com/m.git", "path": "../up"}, "path"),
        ({"kind": "git", "url": "https://git.example.com/m.git", "token_secret": "gone"}, "token_secret"),
        ({"kind": "s3"}, "bucket"),
        ({"kind": "s3", "bucket": "No Bucket"}, "bucket"),
        ({"kind": "s3", "bucket": "models", "url": "ftp://x"}, "url"),
        ({"kind": "s3", "bucket": "models", "url": "https://a:b@minio.example.com"}, "url"),
        ({"kind": "s3", "bucket": "models", "access_key": "AKIA1"}, "token_secret"),
        ({"kind": "s3", "bucket": "models", "file": "x.bin"}, "file"),
        ({"kind": "gcs"}, "bucket"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_before_anything_is_reached(
    project: Project, source: dict[str, str], field: str
) -> None:
    assert f"source.{field}" in errors_of(project, wish(source=source))


def test_a_credential_in_an_address_is_not_kept(way: Way) -> None:
    way.to("source")
    page = way.refused("source", kind="git", url="https://bob:hunter2@git.example.com/m.git")
    assert "store it as a secret" in page
    way.client.post(way.act("panel"), {"step": "source", "kind": "git", "git-url": "https://x:hunter2@y/m.git"})
    assert "hunter2" not in json.dumps(way.fresh().answers) + way.see("source")


def test_a_repository_is_reached_with_its_token_and_pinned(way: Way, git: str) -> None:
    store(way.draft.project, "git-token", TOKEN)
    answers = {"kind": "git", "url": git, "revision": "main", "token_secret": "git-token"}
    way.to("source")
    assert 'id="id_token_secret_error"' in way.refused("source", **answers | {"token_secret": ""})
    page = way.post("source", go="test", **answers).content.decode()
    assert "Reached just now" in page
    assert "tiny.gguf" in page
    way.passes("source", go="summary", **answers)
    summary = way.see("summary")
    way.passes("summary", go="deploy", cost="yes")
    source = Endpoint.objects.get().revisions.get().wish.source
    assert (source.kind, source.file, len(source.revision)) == ("git", "tiny.gguf", 40)
    assert TOKEN not in page + summary + json.dumps(way.fresh().answers) + json.dumps(way.fresh().found)


def test_a_folder_that_the_engine_cant_load_is_refused_with_a_report_per_file(way: Way, git: str) -> None:
    store(way.draft.project, "git-token", TOKEN)
    answers = {"kind": "git", "url": git, "revision": "main", "token_secret": "git-token"}
    way.to("method")
    way.passes("method", engine="python")
    page = way.refused("source", **answers | {"path": "bad"})
    assert "model.py" in page.partition('id="id_path_error"')[2][:400]
    assert "Files of the model" in page
    page = way.post("source", go="test", **answers | {"path": "own/"}).content.decode()
    assert "Reached just now" in page
    way.passes("source", **answers | {"path": "own/"})
    way.passes("machine")
    assert "Lengths and batching" in way.see("llm")


def test_the_key_of_an_unknown_server_is_shown_and_taken_by_one_press(
    way: Way, repositories: GitHost, tmp_path: Path
) -> None:
    with SshHost(tmp_path / "ssh") as ssh:
        store(way.draft.project, "deploy-key", ssh.private)
        url = f"ssh://{ssh.user}@127.0.0.1:{ssh.port}{repositories.folder}/lab/tiny.git"
        answers = {"kind": "git", "url": url, "revision": "main", "token_secret": "deploy-key", "path": "own"}
        way.to("method")
        way.passes("method", engine="python")
        page = way.refused("source", **answers)
        line = f"[127.0.0.1]:{ssh.port} {ssh.host_key}"
        assert f'name="use_host_key" value="{escape(line)}"' in page
        page = way.post("source", go="test", **answers, use_host_key=line).content.decode()
        assert "Reached just now" in page
        assert way.fresh().answers["typed"]["source"]["host_key"] == line


def test_a_bucket_is_reached_and_every_kind_keeps_what_was_typed_for_it(way: Way, bucket: str) -> None:
    store(way.draft.project, "s3-key", "x")
    answers = {"kind": "s3", "bucket": "models", "path": "tiny", "url": bucket}
    answers |= {"access_key": "AKIA1", "token_secret": "s3-key"}
    way.to("source")
    page = way.post("source", go="test", **answers).content.decode()
    assert "Reached just now" in page
    assert 'id="id_bucket_error"' in way.refused("source", **answers | {"bucket": "nothing-here"})
    shown = {"shown": "s3", **answers, "git-url": "https://git.example.com/m.git"}
    way.post("source", go="back", **shown | {"kind": "git"})
    page = way.see("source")
    assert 'name="url" value="https://git.example.com/m.git"' in page
    assert f'name="s3-url" value="{bucket}"' in page
    way.post("source", go="back", kind="s3")
    page = way.see("source")
    assert f'name="url" value="{bucket}"' in page
    assert 'name="git-url" value="https://git.example.com/m.git"' in page


def test_rest_reaches_a_bucket_too(project: Project, bucket: str) -> None:
    store(project, "s3-key", "x")
    source = {"kind": "s3", "bucket": "models", "path": "/tiny/", "url": bucket}
    source |= {"access_key": "AKIA1", "token_secret": "s3-key"}
    made = spec_from(wish(source=source), project)
    assert (made.source.file, made.source.path, made.source.revision) == ("tiny.gguf", "tiny", "")
    assert Draft.objects.count() == 0
