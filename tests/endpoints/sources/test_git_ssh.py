"""A model from a Git server over ssh: a real sshd, whose key must be the given one, and a private key."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import SourceProblem, lfs, source_for
from endpoints.sources.fetching import Patience
from endpoints.sources.git import GitSource
from endpoints.sources.git_address import Address
from tests.certificates import certificate, context
from tests.endpoints.sources.conftest import LARGE, SMALL, ignore, problem
from tests.front import Fault, Front
from tests.git_host import GitHost
from tests.ssh_host import SSHD, SshHost, key
from tests.wait import until

Ask = Callable[..., GitSource]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> GitHost:
    host = GitHost(tmp_path_factory.mktemp("git"))
    host.make("lab/tiny")
    host.commit("lab/tiny", {"tiny.gguf": LARGE, "config.json": b"{}"})
    return host


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    if not Path(SSHD).exists() and not os.environ.get("CI"):
        pytest.skip("sshd isn't installed (openssh-server)")
    with SshHost(tmp_path_factory.mktemp("ssh") / "host") as ssh:
        yield ssh


@pytest.fixture
def ask(host: GitHost, ssh: SshHost, tmp_path: Path) -> Ask:
    """`ask(host_key=…, token=…)`: an impatient source at the server of the test."""

    def source(*, token: str | None = ssh.private, path: str = "lab/tiny", **spec: Any) -> GitSource:
        url = f"ssh://{ssh.user}@127.0.0.1:{ssh.port}{host.folder}/{path}.git"
        settings = {"kind": "git", "url": url, "host_key": ssh.host_key} | spec
        found = source_for(settings, store=tmp_path / "store", token=token, hub="")
        assert isinstance(found, GitSource)
        return replace(found, patience=Patience(stall=20.0, attempts=2))

    return source


@pytest.fixture
def large(host: GitHost, ssh: SshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """Where the large files are, as the server says when it is asked over ssh."""
    tls = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls))
    with Front(door=host, tls=context(tls)) as front:
        host.url = front.url
        said = {"href": f"{front.url}/lab/tiny.git/info/lfs", "header": {"Authorization": "Basic b25lOnRpbWU="}}
        ssh.lfs.write_text(json.dumps(said))
        yield front


def test_a_model_is_found_and_arrives(ask: Ask, large: Front, host: GitHost, tmp_path: Path) -> None:
    found = ask().check()
    assert found.facts is not None
    large.fault(Fault("/lfs/", cut_after=300_000))
    path = ask(revision=found.revision).fetch(tmp_path / "store", ignore, ["tiny.gguf"])
    assert path.read_bytes() == LARGE
    assert large.sent("/lfs/")[-2] == 300_000


def test_only_what_is_asked_for_comes(ask: Ask, ssh: SshHost, tmp_path: Path) -> None:
    first = ask().fetch(tmp_path / "store", ignore, ["config.json"])
    assert first.read_bytes() == b"{}"


def test_without_a_host_key_its_fingerprint_is_shown_and_nothing_sent(ask: Ask, ssh: SshHost) -> None:
    ssh.log.unlink(missing_ok=True)
    with pytest.raises(SourceProblem) as caught:
        ask(host_key="").check()
    assert (caught.value.code, caught.value.field) == ("unknown_host", "host_key")
    assert ssh.fingerprint in caught.value.message
    line = f"[127.0.0.1]:{ssh.port} {ssh.host_key}"
    assert caught.value.offer == line
    assert not ssh.log.exists()
    assert ask(host_key=line).files()


def test_another_host_key_is_refused_before_anything_is_sent(ask: Ask, ssh: SshHost, tmp_path: Path) -> None:
    key(tmp_path / "other")
    ssh.log.unlink(missing_ok=True)
    other = (tmp_path / "other.pub").read_text()
    code, field, said = problem(ask(host_key=other).check)
    assert (code, field) == ("other_host", "host_key")
    assert ssh.fingerprint in said
    assert not ssh.log.exists()


def test_every_wrong_key_is_named(ask: Ask, ssh: SshHost, tmp_path: Path) -> None:
    stranger = key(tmp_path / "stranger")
    locked = key(tmp_path / "locked", passphrase="sesame")
    found = problem(ask(token=stranger).check)
    assert found[:2] == ("bad_key", "token_secret")
    assert f"for the user {ssh.user}" in found[2]
    assert "passphrase" in problem(ask(token=locked).check)[2]
    assert "public half" in problem(ask(token=(tmp_path / "stranger.pub").read_text()).check)[2]
    assert problem(ask(token="nonsense").check)[:2] == ("bad_key", "token_secret")
    assert problem(ask(token=None).check)[:2] == ("bad_key", "token_secret")
    assert ask(token=ssh.private.replace("\n", "\r\n").strip()).files()


def test_what_is_not_there_is_said_at_its_setting(ask: Ask) -> None:
    assert problem(ask(path="lab/none").check)[:2] == ("not_found", "url")
    assert problem(ask(revision="nothing").check)[:2] == ("no_revision", "revision")
    assert problem(ask(url="ssh://git@127.0.0.1:9/a.git").check)[:2] == ("no_network", "url")
    assert problem(ask(url="ssh://git@127.0.0.1:9/a.git", host_key="").check)[:2] == ("no_network", "url")
    assert problem(ask(url="git@[fe80::1]:a.git").check)[:2] == ("address_refused", "url")


def test_large_files_that_the_server_gives_no_way_to_are_said(ask: Ask, ssh: SshHost) -> None:
    ssh.lfs.unlink(missing_ok=True)
    assert problem(ask().check)[:2] == ("lfs", "url")


def test_a_way_that_was_opened_for_a_while_is_asked_for_again(
    ask: Ask, large: Front, host: GitHost, tmp_path: Path
) -> None:
    host.commit("lab/tiny", {"a.gguf": LARGE, "b.gguf": SMALL}, branch="two")
    large.fault(Fault("/objects/batch", status=401, method="POST", after=1))
    first = ask(revision="two").fetch(tmp_path / "store", ignore, ["a.gguf", "b.gguf"])
    assert (first.parent / "b.gguf").read_bytes() == SMALL


def test_a_server_that_hangs_when_asked_for_large_files_is_given_up(
    ask: Ask, ssh: SshHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ask()
    assert source.files()
    monkeypatch.setattr(lfs, "SSH_SECONDS", 1.0)
    os.mkfifo(ssh.gate)
    try:
        assert problem(lambda: source.read("tiny.gguf", 0, 8))[:2] == ("stalled", "url")
    finally:
        os.close(os.open(ssh.gate, os.O_RDWR))  # whoever waits at it goes on, and ends
        ssh.gate.unlink()


def test_nothing_of_the_key_is_left_or_seen(ask: Ask, ssh: SshHost, tmp_path: Path) -> None:
    """Its text lies in no file, and no command line holds it."""
    seen: list[bytes] = []
    os.mkfifo(ssh.gate)

    def look() -> bool:
        seen.extend(read(file) for file in Path("/proc").glob("[0-9]*/cmdline"))
        return any(b"upload-pack" in line for line in seen)

    thread = threading.Thread(target=lambda: ask().fetch(tmp_path / "store", ignore, ["config.json"]))
    thread.start()
    until(look, what="ssh to wait at the gate")
    with ssh.gate.open("w") as gate:
        ssh.gate.unlink()
        gate.write("go\n")
    thread.join()
    secret = ssh.private.splitlines()[1].encode()
    written = [read(file) for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert not any(secret in text for text in seen + written)


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_the_short_form_of_an_address_is_understood() -> None:
    address = Address.of("git@git.example:lab/tiny.git")
    assert (address.url, address.user, address.host) == ("git@git.example:lab/tiny.git", "git", "git.example")
    assert (address.port, address.known_as, address.path) == (22, "git.example", "lab/tiny.git")
