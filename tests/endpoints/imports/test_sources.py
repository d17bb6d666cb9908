"""Versions from Git, S3 and Google Cloud Storage, whose pins and digests differ from the Hub's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from gcp_storage_emulator.server import create_server

from endpoints import importing
from endpoints.models import Secret, VersionImport
from tests import make
from tests.certificates import certificate, context
from tests.endpoints.imports.importer import LARGE, MODEL_PY, Died, Import
from tests.endpoints.sources.test_gcs import Google, put
from tests.front import Front
from tests.git_host import GitHost
from tests.s3_host import ACCESS_KEY, SECRET_KEY, s3_bucket
from tests.ssh_host import SshHost

pytestmark = pytest.mark.django_db


def test_a_commit_of_git_is_imported_with_what_lies_in_lfs(
    tiny: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, tls = GitHost(tmp_path / "git"), certificate(tmp_path)
    host.make("lab/tiny")
    commit = host.commit("lab/tiny", {"own/model.py": MODEL_PY, "own/weights/tiny.gguf": LARGE, "else": b"x"})
    host.token = "glpat-of-the-lab"
    Secret.store(tiny.project, "git-token", host.token, by=make.user("alice"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tls))
    with Front(door=host, tls=context(tls)) as front:
        host.url = front.url
        given = {"kind": "git", "shown": "git", "url": f"{front.url}/lab/tiny.git", "path": "own/"}
        assert 'id="id_token_secret_error"' in tiny.refused(**given)
        version = tiny.run(tiny.begun(**given, token_secret="git-token")).version
    assert version is not None
    assert [file["path"] for file in version.files] == ["model.py", "weights/tiny.gguf"]
    assert (version.folder / "weights/tiny.gguf").read_bytes() == LARGE
    assert version.source["revision"] == commit
    assert version.origin.endswith(f"/lab/tiny.git/own at {commit}")


def test_the_key_of_an_unknown_server_is_shown_before_anything_is_sent_and_taken_by_one_press(
    tiny: Import, tmp_path: Path
) -> None:
    host = GitHost(tmp_path / "git")
    host.make("lab/tiny")
    host.commit("lab/tiny", {"model.py": MODEL_PY})
    with SshHost(tmp_path / "ssh") as ssh:
        Secret.store(tiny.project, "deploy-key", ssh.private, by=make.user("alice"))
        url = f"ssh://{ssh.user}@127.0.0.1:{ssh.port}{host.folder}/lab/tiny.git"
        given = {"kind": "git", "shown": "git", "url": url, "token_secret": "deploy-key"}
        page = tiny.refused(**given)
        offered = re.search(r'name="use_host_key" value="([^"]+)"', page)
        assert offered is not None
        page = tiny.post(**given, use_host_key=unescape(offered[1])).content.decode()
        assert "Reached just now" in page
        assert not VersionImport.objects.exists(), "taking a key begins nothing"
        version = tiny.run(tiny.begun(**given, host_key=unescape(offered[1]))).version
    assert version is not None
    assert "deploy-key" not in json.dumps(version.source)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    with s3_bucket({}) as client:
        yield client


def test_objects_of_a_bucket_are_pinned_by_their_names_and_never_mixed(tiny: Import, bucket: Any) -> None:
    url = bucket.meta.endpoint_url
    tag = bucket.put_object(Bucket="models", Key="tiny/a.gguf", Body=LARGE)["ETag"].strip('"')
    bucket.put_object(Bucket="models", Key="tiny/notes.txt", Body=b"first")
    given = {"kind": "s3", "shown": "s3", "bucket": "models", "path": "tiny", "url": url, "only": "a.gguf"}
    Secret.store(tiny.project, "s3-secret", SECRET_KEY, by=make.user("alice"))
    assert 'id="id_access_key_error"' in tiny.refused(**given), "everybody may list it, and nobody read it"
    given |= {"access_key": ACCESS_KEY, "token_secret": "s3-secret"}
    one = tiny.begun(**given)
    bucket.put_object(Bucket="models", Key="tiny/notes.txt", Body=b"what isn't imported may change")
    one = tiny.run(one)
    version = one.version
    assert version is not None, one.message
    assert version.source["objects"] == {"a.gguf": tag}
    assert version.source["service"] == url
    page = tiny.client.get("/projects/alpha/models/tiny/versions/1/").content.decode()
    assert "s3://models/tiny" in page
    other = tiny.begun(**given)
    bucket.put_object(Bucket="models", Key="tiny/a.gguf", Body=LARGE + b" ")
    other = tiny.run(other)
    assert (other.state, other.reason) == ("failed", "changed")
    assert "import it again" in other.message


def test_an_import_from_google_goes_on_where_its_worker_died(
    tiny: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Any = create_server("127.0.0.1", 0, in_memory=True, default_bucket="models")
    server.start()
    emulator = f"http://127.0.0.1:{server._api._httpd.server_address[1]}"
    put(emulator, "tiny/a.gguf", LARGE)
    google = Google("")
    google.open_to_all = True
    whole = importing.Report.__call__

    def die(report: importing.Report, done: int, total: int) -> None:
        whole(report, done, total)
        if done > len(LARGE) // 3:
            raise Died

    with Front(emulator, door=google) as front:
        one = tiny.begun(kind="gcs", shown="gcs", bucket="models", path="tiny", url=front.url)
        looked = len(front.of("alt=media"))
        monkeypatch.setattr(importing.Report, "__call__", die)
        with pytest.raises(Died):
            tiny.run(one)
        monkeypatch.setattr(importing.Report, "__call__", whole)
        tiny.ahead += importing.LEASE * 2
        version = tiny.run(one).version
        ranges = [asked.headers.get("Range", "bytes=0-") for asked in front.of("alt=media")[looked:]]
    server.stop()
    assert version is not None
    assert (version.folder / "a.gguf").read_bytes() == LARGE
    begins = [int(asked[len("bytes=") :].split("-")[0]) for asked in ranges]
    assert begins[0] == 0
    assert begins[-1] > len(LARGE) // 3, "what had come isn't asked for again"
    assert version.source["objects"].keys() == {"a.gguf"}
