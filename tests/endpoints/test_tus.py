"""Uploads by the tus protocol: cut, resumed, checked, and refused in words."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import Project
from accounts.rest import Problem
from accounts.roles import Role
from endpoints import receiving
from endpoints.models import ModelVersion, RegisteredModel, Upload, VersionDraft
from endpoints.models.registry import store
from endpoints.sources import store as storage
from tests import make
from tests.model_files import gguf
from tests.wait import until
from tir_console.up.ports import free_port

DATA = bytes(range(256)) * 40
TYPE = "application/offset+octet-stream"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Sender:
    """Somebody who uploads into a draft: by a key, or with a browser's session."""

    def __init__(self, draft: VersionDraft, key: str = "", user: Any = None) -> None:
        self.client, self.headers = Client(), {"Tus-Resumable": "1.0.0"}
        slug, name = draft.model.project.slug, draft.model.name  # type: ignore[union-attr]
        self.home = f"/projects/{slug}/models/{name}/drafts/{draft.pk}/uploads/"
        if user:
            self.client.force_login(user)
        else:
            self.headers |= {"Authorization": f"Bearer {key}"}
            self.home = f"/api/v1/models/{name}/drafts/{draft.pk}/uploads"

    def create(self, path: str, size: int, **headers: str) -> Any:
        about = f"path {b64(path.encode())}" + headers.pop("about", "")
        return self.ask("POST", self.home, **{"Upload-Length": str(size), "Upload-Metadata": about} | headers)

    def patch(self, url: str, data: bytes, offset: int, **headers: str) -> Any:
        return self.ask("PATCH", url, data, TYPE, **{"Upload-Offset": str(offset)} | headers)

    def ask(self, method: str, url: str, data: Any = b"", kind: Any = "", **headers: str) -> Any:
        given = {name: value for name, value in (self.headers | headers).items() if value}
        return self.client.generic(method, url, data, kind or "application/json", headers=given)


@pytest.fixture
def draft(db: None) -> VersionDraft:
    alpha = make.project()
    return VersionDraft.begin(RegisteredModel.open(alpha, "tiny", by=None), by=None)


@pytest.fixture(params=["key", "session"])
def sender(request: Any, draft: VersionDraft) -> Sender:
    if request.param == "session":
        return Sender(draft, user=make.user("alice"))
    return Sender(draft, make.key(draft.model.project, "manage")[1])  # type: ignore[arg-type]


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"] if answer.status_code >= 400 else ""


def test_a_file_comes_in_pieces_and_ends_as_a_blob_with_its_digest(sender: Sender, draft: VersionDraft) -> None:
    made = sender.create("weights/a.bin", len(DATA))
    assert made.status_code == 201
    url = made["Location"]
    assert "Upload-Expires" in made
    for at in (0, 4000, 8000):
        part = DATA[at : at + 4000]
        answer = sender.patch(url, part, at, **{"Upload-Checksum": f"sha256 {b64(hashlib.sha256(part).digest())}"})
        assert (answer.status_code, answer["Upload-Offset"]) == (204, str(at + len(part)))
    head = sender.ask("HEAD", url)
    assert (head["Upload-Offset"], head["Upload-Length"]) == (str(len(DATA)), str(len(DATA)))
    assert (head["Cache-Control"], head["Tus-Resumable"]) == ("no-store", "1.0.0")
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert draft.uploads.get().sha256 == sha256
    assert (draft.folder / "weights/a.bin").samefile(storage.blob_path(store(), sha256))
    assert storage.is_verified(draft.folder / "weights/a.bin", store(), sha256), "a deployment reads it once more"


def test_a_wrong_piece_leaves_nothing_and_the_right_one_goes_on(sender: Sender, draft: VersionDraft) -> None:
    url = sender.create("a.bin", len(DATA))["Location"]
    sender.patch(url, DATA[:100], 0)
    wrong = {"Upload-Checksum": f"sha256 {b64(hashlib.sha256(b'other').digest())}"}
    assert code(sender.patch(url, DATA[100:200], 100, **wrong)) == (460, "checksum_mismatch")
    assert sender.ask("HEAD", url)["Upload-Offset"] == "100"
    assert code(sender.patch(url, DATA[200:], 200)) == (409, "wrong_offset")
    assert sender.patch(url, DATA[100:], 100).status_code == 204
    assert draft.uploads.get().sha256 == hashlib.sha256(DATA).hexdigest()


def test_what_was_left_by_a_killed_process_is_not_trusted(sender: Sender, draft: VersionDraft) -> None:
    """Bytes beyond the offset came with a piece nobody vouched for; the digest starts anew in a new process."""
    url = sender.create("a.bin", len(DATA))["Location"]
    sender.patch(url, DATA[:1000], 0)
    partial = storage.partial_path(store(), draft.uploads.get().key)
    partial.write_bytes(partial.read_bytes() + b"half a piece")
    receiving._digests._known.clear()
    assert sender.ask("HEAD", url)["Upload-Offset"] == "1000"
    assert sender.patch(url, DATA[1000:], 1000).status_code == 204
    assert draft.uploads.get().sha256 == hashlib.sha256(DATA).hexdigest()


def test_bytes_the_disk_lost_are_asked_for_again(sender: Sender, draft: VersionDraft) -> None:
    url = sender.create("a.bin", len(DATA))["Location"]
    sender.patch(url, DATA[:1000], 0)
    os.truncate(storage.partial_path(store(), draft.uploads.get().key), 700)
    assert sender.ask("HEAD", url)["Upload-Offset"] == "700"
    assert sender.patch(url, DATA[700:], 700).status_code == 204
    assert draft.uploads.get().sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_whole_that_is_not_what_was_declared_is_thrown_away(sender: Sender, draft: VersionDraft) -> None:
    digest = hashlib.sha256(b"other").hexdigest()
    url = sender.create("a.bin", len(DATA), about=f",sha256 {b64(digest.encode())}")["Location"]
    assert code(sender.patch(url, DATA, 0)) == (460, "checksum_mismatch")
    assert not draft.uploads.exists()
    assert not list((store() / "partial").glob("upload-*"))
    assert sender.ask("HEAD", url).status_code == 404


def test_what_cannot_be_sent_is_refused_before_a_byte_is_kept(
    sender: Sender, draft: VersionDraft, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sender.create("a.bin", 10)["Location"]
    assert code(sender.patch(url, DATA[:11], 0)) == (413, "too_large")
    assert code(sender.ask("PATCH", url, b"x", "text/plain", **{"Upload-Offset": "0"})) == (415, "wrong_type")
    assert code(sender.patch(url, b"x", 0, **{"Tus-Resumable": "0.2.2"})) == (412, "wrong_version")
    assert sender.patch(url, b"x", 0, **{"Tus-Resumable": ""})["Tus-Version"] == "1.0.0"
    assert code(sender.patch(url, b"x", 0, **{"Upload-Offset": "one"})) == (400, "bad_header")
    assert code(sender.patch(url, b"x", 0, **{"Upload-Checksum": "md5 abc"})) == (400, "bad_checksum")
    monkeypatch.setattr(receiving, "LARGEST_PIECE", 5)
    assert code(sender.patch(url, b"x" * 6, 0)) == (413, "too_large")
    settings.UPLOAD_MAX_BYTES = 1000
    assert code(sender.create("b.bin", 1001)) == (413, "too_large")
    settings.UPLOAD_MAX_BYTES = 0
    assert code(sender.create("b.bin", 1 << 55)) == (507, "disk_full")
    assert sender.ask("HEAD", url)["Upload-Offset"] == "0"


@pytest.mark.parametrize(
    "path", ["", "../a", "/etc/passwd", "a/../../b", "a//b", "a\\b", "a\0b", "a\nb", ".", "x" * 401, "é" * 101]
)
def test_a_path_stays_in_the_version(draft: VersionDraft, path: str) -> None:
    sender = Sender(draft, user=make.user("alice"))
    assert code(sender.create(path, 1)) == (422, "invalid")


def test_a_path_is_there_once_and_never_both_file_and_folder(draft: VersionDraft) -> None:
    sender = Sender(draft, user=make.user("alice"))
    assert sender.create("a/b", 1).status_code == 201
    assert code(sender.create("a/b", 1)) == (409, "name_taken")
    assert code(sender.create("a", 1)) == (422, "invalid")
    assert code(sender.create("a/b/c", 1)) == (422, "invalid")


def test_an_upload_left_too_long_is_gone(sender: Sender, draft: VersionDraft) -> None:
    url = sender.create("a.bin", 10)["Location"]
    Upload.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert sender.ask("HEAD", url).status_code == 410
    assert code(sender.patch(url, b"x", 0)) == (410, "expired")


def test_an_upload_can_be_ended_and_its_bytes_go(sender: Sender, draft: VersionDraft) -> None:
    url = sender.create("a/a.bin", 10)["Location"]
    sender.patch(url, b"x" * 10, 0)
    assert (draft.folder / "a/a.bin").exists()
    assert sender.ask("DELETE", url).status_code == 204
    assert sender.ask("HEAD", url).status_code == 404
    assert not (draft.folder / "a").exists()


def test_a_draft_thrown_away_while_a_piece_comes_leaves_nothing(draft: VersionDraft) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            VersionDraft.objects.all().delete()
            return super().read(size)

    upload = draft.expect("a.bin", 9, by=None)
    for left in (b"half", b"x" * 9):
        with pytest.raises(Problem, match="removed"):
            receiving.receive(upload, Slow(left), len(left), offset=0, sha256=None, at=timezone.now())
    assert not list((store() / "partial").glob("upload-*"))
    assert not upload.place.exists()


def test_a_piece_waits_for_no_other(sender: Sender, draft: VersionDraft) -> None:
    url = sender.create("a.bin", 10)["Location"]
    with storage.locked(store(), draft.uploads.get().key):
        assert code(sender.patch(url, b"x", 0)) == (423, "busy")


def test_what_the_server_can_do_is_said_to_whoever_asks(sender: Sender, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 77
    for url in (sender.home, sender.create("a.bin", 1)["Location"]):
        said = sender.ask("OPTIONS", url, **{"Tus-Resumable": ""})
        assert said.status_code == 204
        assert (said["Tus-Version"], said["Tus-Max-Size"], said["Tus-Checksum-Algorithm"]) == (
            "1.0.0",
            "77",
            "sha256",
        )
        assert set(said["Tus-Extension"].split(",")) == {"creation", "checksum", "expiration", "termination"}


def test_methods_that_a_proxy_keeps_back_come_in_a_header(sender: Sender, draft: VersionDraft) -> None:
    url = sender.create("a.bin", 3)["Location"]
    headers = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0"}
    assert sender.ask("POST", url, b"abc", TYPE, **headers).status_code == 204
    assert draft.uploads.get().sha256


def test_an_empty_file_is_whole_at_once(sender: Sender, draft: VersionDraft) -> None:
    assert sender.create("__init__.py", 0).status_code == 201
    assert draft.uploads.get().sha256 == hashlib.sha256(b"").hexdigest()
    assert (draft.folder / "__init__.py").read_bytes() == b""


def test_the_same_bytes_lie_on_the_disk_once(sender: Sender, draft: VersionDraft) -> None:
    for path in ("a.bin", "b.bin"):
        sender.patch(sender.create(path, len(DATA))["Location"], DATA, 0)
    assert (draft.folder / "a.bin").samefile(draft.folder / "b.bin")


def test_nobody_else_gets_at_an_upload(draft: VersionDraft) -> None:
    alpha: Project = draft.model.project  # type: ignore[assignment]
    url = Sender(draft, user=make.user("alice")).create("a.bin", 10)["Location"]
    charlies = make.project("Beta", make.user("charlie"))
    assert Sender(draft, user=make.user("charlie")).ask("HEAD", url).status_code == 404
    assert Sender(draft, user=make.member(alpha, "bob", Role.VIEWER)).patch(url, b"x", 0).status_code == 403
    assert Client().generic("PATCH", url).status_code == 302
    by_api = Sender(draft, make.key(alpha, "manage")[1]).create("b.bin", 10)["Location"]
    assert Sender(draft, make.key(charlies, "manage")[1]).patch(by_api, b"x", 0).status_code == 404
    assert Sender(draft, make.key(alpha, "inference")[1]).patch(by_api, b"x", 0).status_code == 403
    for method in ("OPTIONS", "POST"):
        assert Client().generic(method, by_api).status_code == 401
    assert Client().options(by_api.rpartition("/")[0]).status_code == 401
    assert set(draft.uploads.values_list("offset", flat=True)) == {0}


def test_a_session_without_its_token_sends_nothing(draft: VersionDraft) -> None:
    """Another site can't have a browser upload into somebody's draft."""
    url = Sender(draft, user=make.user("alice")).create("a.bin", 10)["Location"]
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make.user("alice"))
    answer = strict.generic("PATCH", url, b"x", TYPE, headers={"Tus-Resumable": "1.0.0", "Upload-Offset": "0"})
    assert answer.status_code == 403


# ── by a real server ────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def console(django_db_setup: None) -> Iterator[str]:
    """The address of a real daphne on the tests' own database."""
    port = free_port()
    place = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    command = [
        sys.executable,
        "-m",
        "daphne",
        "-b",
        "127.0.0.1",
        "-p",
        str(port),
        "-v",
        "0",
        "tir_console.asgi:application",
    ]
    environ = os.environ | {"DATABASE_URL": place.geturl(), "CONSOLE_URL": f"http://127.0.0.1:{port}"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: process.poll() is not None or _answers(port), seconds=60, what="daphne")
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.django_db(transaction=True)
def test_a_cut_in_the_middle_of_a_piece_loses_that_piece_only(console: str) -> None:
    draft = VersionDraft.begin(RegisteredModel.open(make.project(), "tiny", by=None), by=None)
    key = make.key(draft.model.project, "manage")[1]  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {key}", "Tus-Resumable": "1.0.0"}
    home = f"{console}/api/v1/models/tiny/drafts/{draft.pk}/uploads"
    data = os.urandom(6 << 20)
    with httpx.Client(headers=headers, trust_env=False, timeout=60) as client:
        about = {"Upload-Length": str(len(data)), "Upload-Metadata": f"path {b64(b'w/model.bin')}"}
        url = console + client.post(home, headers=about).headers["Location"]

        def send(part: bytes, at: int) -> int:
            piece = {"Upload-Offset": str(at), "Content-Type": TYPE}
            return client.patch(url, content=part, headers=piece).status_code

        assert send(data[: 4 << 20], 0) == 204
        lines = [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Upload-Offset: {4 << 20}", f"Content-Type: {TYPE}", f"Content-Length: {2 << 20}", "Host: x"]
        with socket.create_connection(("127.0.0.1", int(console.rpartition(":")[2]))) as cut:
            request = f"PATCH {url.removeprefix(console)} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
            cut.sendall(request.encode() + data[4 << 20 : 5 << 20])
        offset = int(client.head(url).headers["Upload-Offset"])
        assert offset == 4 << 20
        threads = [threading.Thread(target=send, args=(data[offset:], offset)) for _ in range(3)]  # and at once
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.head(url).headers["Upload-Offset"] == str(len(data))
    assert draft.uploads.get().sha256 == hashlib.sha256(data).hexdigest()


def _send_without_end(one: socket.socket) -> None:
    for _ in range(1000):
        one.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")


def test_a_body_that_is_too_large_for_anything_ends_before_it_fills_the_memory(console: str) -> None:
    """Announced it is refused at once, before a log-in; sent in chunks, once it is too much."""
    port = int(console.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n")
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(OSError):  # noqa: PT011 (reset or broken pipe, whichever is felt first)
            _send_without_end(one)
    assert httpx.get(f"{console}/login/", trust_env=False, timeout=60).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_the_commands_of_the_empty_state_work_as_they_stand(console: str, tmp_path: Path) -> None:
    alpha = make.project()
    client = Client()
    client.force_login(make.user("alice"))
    page = unescape(client.get("/projects/alpha/models/").content.decode())
    script = re.search(r"<pre[^>]*><code>(TIR=.*?)</code>", page, re.DOTALL)
    assert script
    (tmp_path / "model.gguf").write_bytes(gguf({}))
    commands = script[1].replace("http://127.0.0.1:8000", console)
    environ = {"PATH": os.environ["PATH"], "TIR_API_KEY": make.key(alpha, "manage")[1]}
    done = subprocess.run(
        ["bash", "-c", commands],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version = ModelVersion.objects.get()
    assert (version.model.name, version.number, version.main, version.kind) == (
        "my-model",
        1,
        "model.gguf",
        "gguf",
    )
    assert version.facts["architecture"] == "llama"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf"], "nothing is left behind"
