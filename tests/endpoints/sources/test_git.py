"""A model from a Git server over https: Git's own backend, TLS, a token, large files, cut connections."""

import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources import cache, git_repository, network, source_for
from endpoints.sources.download import PIECE
from endpoints.sources.fetching import Patience
from endpoints.sources.git import GitSource
from tests.certificates import certificate, context
from tests.endpoints.sources.conftest import LARGE, SECRET, SMALL, ignore, problem
from tests.front import Fault, Front
from tests.git_host import GitHost, git
from tests.wait import until

BIG = [os.urandom(400_000), os.urandom(500_000)]
FILES = {"README.md": b"hi", "tiny.gguf": LARGE, "folder/config.json": b"{}", "folder/größe 1.bin": BIG[0]}

Ask = Callable[..., GitSource]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> GitHost:
    host = GitHost(tmp_path_factory.mktemp("git"))
    host.make("lab/tiny")
    host.commit("lab/tiny", FILES)
    git(host.folder / "lab/tiny.git", "tag", "-a", "-m", "first", "v1", "main")
    host.make("lab/empty")
    return host


@pytest.fixture
def host(made: GitHost, tmp_path: Path) -> GitHost:
    """A server of this test's own, with the token SECRET."""
    own = GitHost(tmp_path / "served")
    shutil.copytree(made.folder, own.folder)
    own.large, own.token = dict(made.large), SECRET
    return own


@pytest.fixture
def front(host: GitHost, tls: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls))
    with Front(door=host, tls=context(tls)) as front:
        host.url = front.url
        yield front


@pytest.fixture
def ask(front: Front, tmp_path: Path) -> Ask:
    """`ask("lab/tiny", revision=…)`: an impatient source at the server of the test."""

    def source(name: str = "lab/tiny", *, token: str | None = SECRET, url: str = "", **spec: Any) -> GitSource:
        settings = {"kind": "git", "url": url or f"{front.url}/{name}.git"} | spec
        found = source_for(settings, store=tmp_path / "store", token=token, hub="")
        assert isinstance(found, GitSource)
        return replace(found, patience=Patience(stall=20.0, attempts=2))

    return source


def test_a_model_is_found_by_its_header_and_arrives(ask: Ask, host: GitHost, front: Front, tmp_path: Path) -> None:
    found = ask(revision="main").check()
    assert found.revision == git(host.folder / "lab/tiny.git", "rev-parse", "main")
    assert found.facts is not None
    assert found.facts.architecture == "llama"
    assert all(one.headers["Range"] for one in front.of("/lfs/"))
    path = ask(revision=found.revision).fetch(tmp_path / "store", ignore, ["tiny.gguf"])
    assert path.read_bytes() == LARGE
    assert found.revision in path.parts


def test_a_folder_arrives_whole_and_no_other_files_are_fetched(
    ask: Ask, host: GitHost, front: Front, tmp_path: Path
) -> None:
    host.commit("lab/tiny", FILES | {"elsewhere.bin": BIG[1]})
    source = ask(path="folder")
    names = [file.path for file in source.check("pytorch").files]
    assert sorted(names) == ["config.json", "größe 1.bin"]
    seen: list[tuple[int, int]] = []
    first = source.fetch(tmp_path / "store", lambda done, total: seen.append((done, total)), names)
    for name in names:
        assert (first.parent / name).read_bytes() == FILES[f"folder/{name}"]
    assert seen[-1] == (400_002, 400_002)
    assert sum(one.sent for one in front.passed) < 450_000


def test_branch_tag_commit_and_default(ask: Ask, host: GitHost) -> None:
    first = git(host.folder / "lab/tiny.git", "rev-parse", "main")
    second = host.commit("lab/tiny", {"b.gguf": SMALL}, branch="feature/b")
    assert ask(revision="").check().revision == first
    assert ask(revision="v1").check().revision == first
    assert ask(revision="feature/b").check().revision == second
    host.commit("lab/tiny", {"c.gguf": SMALL})
    assert ask(revision=first).check().revision == first
    assert [file.path for file in ask(revision=first).files() if file.sha256] == ["tiny.gguf"]


def test_a_large_file_that_was_cut_goes_on_where_it_ended(ask: Ask, front: Front, tmp_path: Path) -> None:
    front.fault(Fault("/lfs/", cut_after=300_000))
    assert ask().fetch(tmp_path / "store", ignore, ["tiny.gguf"]).read_bytes() == LARGE
    first, second = front.sent("/lfs/")
    assert first == 300_000
    assert len(LARGE) - 300_000 <= second <= len(LARGE) - 300_000 + PIECE


def test_of_files_without_lfs_those_that_arrived_are_kept(
    ask: Ask, host: GitHost, front: Front, tmp_path: Path
) -> None:
    """Git can't go on in the middle of a file, but with the next one it can."""
    host.commit("lab/tiny", {"a.bin": BIG[0], "b.bin": BIG[1]})
    names = ["a.bin", "b.bin"]
    ask().fetch(tmp_path / "whole", ignore, names)
    posts = [one.sent for one in front.passed if one.method == "POST"]
    [_, second] = [at for at, sent in enumerate(posts) if sent > 300_000]
    shutil.rmtree(tmp_path / "store")
    front.fault(Fault("git-upload-pack", method="POST", cut_after=100_000, after=second))
    assert problem(lambda: ask().fetch(tmp_path / "store", ignore, names))[0] == "stalled"
    before = len(front.passed)
    path = ask().fetch(tmp_path / "store", ignore, names)
    assert [path.read_bytes(), (path.parent / "b.bin").read_bytes()] == BIG
    assert posts[second] <= sum(one.sent for one in front.passed[before:]) < posts[second] + 10_000


def test_a_second_fetch_asks_for_no_bytes(ask: Ask, front: Front, tmp_path: Path) -> None:
    names = ["tiny.gguf", "folder/größe 1.bin"]
    ask().fetch(tmp_path / "store", ignore, names)
    before = len(front.passed)
    ask().fetch(tmp_path / "store", ignore, names)
    assert sum(one.sent for one in front.passed[before:]) < 5000


def test_the_copy_is_handed_out_only_to_who_may_see_the_repository(ask: Ask, tmp_path: Path) -> None:
    commit = ask().check().revision
    assert problem(ask(revision=commit, token="wrong").files)[0] == "bad_token"


def test_nothing_of_the_token_is_left_or_seen(ask: Ask, front: Front, tmp_path: Path) -> None:
    """Neither in command lines while it runs, nor in any file afterwards, plain or as the header has it."""
    front.fault(Fault("git-upload-pack", method="POST", pause=0.05, times=9))
    told = [SECRET.encode(), base64.b64encode(f"oauth2:{SECRET}".encode())]
    seen: list[bytes] = []
    thread = threading.Thread(target=lambda: ask().fetch(tmp_path / "store", ignore, ["folder/größe 1.bin"]))
    thread.start()
    while thread.is_alive():
        seen += [read(file) for file in Path("/proc").glob("[0-9]*/cmdline")]
        thread.join(0.02)
    assert any(b"remote-https" in line for line in seen)
    written = [read(file) for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert not any(secret in text for text in seen + written for secret in told)


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_cancelling_ends_git(ask: Ask, front: Front, tmp_path: Path) -> None:
    front.fault(Fault("git-upload-pack", method="POST", pause=1.0, times=9))

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask().fetch(tmp_path / "store", cancel, ["README.md"])
    store = str(tmp_path / "store").encode()
    until(lambda: not any(store in read(file) for file in Path("/proc").glob("[0-9]*/cmdline")), what="git to end")


def test_a_fetch_that_was_killed_is_not_in_the_way(ask: Ask, host: GitHost) -> None:
    source = ask()
    source.check()
    (source._repository.path / "shallow.lock").touch()
    host.commit("lab/tiny", {"b.gguf": SMALL})
    ask().check()


def test_what_git_fetched_may_be_removed_once_nobody_has_used_it_for_long(ask: Ask, tmp_path: Path) -> None:
    """And is fetched again when it is needed."""
    source = ask()
    source.check()
    assert cache.make_room(tmp_path / "store", limit=1, in_use=()) == []
    os.utime(source._repository.path, (1, 1))
    [removed] = cache.make_room(tmp_path / "store", limit=1, in_use=())
    assert removed.path.startswith("repositories/")
    assert not source._repository.path.exists()
    assert ask().check().facts


def test_the_token_goes_to_no_other_server(ask: Ask, front: Front, host: GitHost) -> None:
    """Neither after a redirect, nor to where the repository says its large files are."""
    with Front(door=lambda *_: (404, {}, b"")) as stranger:
        front.fault(
            Fault("info/refs", status=301, headers={"Location": f"{stranger.url}/x.git/info/refs"}, times=2)
        )
        found = problem(ask().check)
        assert found[:2] == ("moved", "url")
        assert f"{stranger.url}/x.git" in found[2]
        assert not stranger.passed
        lfsconfig = f"[lfs]\n\turl = {front.url.replace('127.0.0.1', 'localhost')}/lab/tiny.git/info/lfs\n"
        host.commit("lab/tiny", FILES | {".lfsconfig": lfsconfig.encode()})
        assert problem(ask().check)[:2] == ("forbidden", "token_secret")
        assert "Authorization" not in [one for one in front.passed if "batch" in one.path][-1].headers


def test_every_wrong_setting_is_named(ask: Ask, host: GitHost) -> None:
    assert problem(ask(token=None).check)[:2] == ("unauthorized", "token_secret")
    assert problem(ask(token="wrong").check)[:2] == ("bad_token", "token_secret")
    assert problem(ask("lab/none").check)[:2] == ("not_found", "url")
    assert problem(ask("lab/empty").check)[:2] == ("no_model", "url")
    code, field, said = problem(ask(revision="nothing").check)
    assert (code, field) == ("no_revision", "revision")
    assert "There is: main." in said
    assert problem(ask(revision="0" * 40).check)[:2] == ("no_revision", "revision")
    assert problem(ask(path="nothing").check)[:2] == ("no_path", "path")
    assert problem(ask(path="folder").check)[:2] == ("no_model", "path")
    assert problem(ask(file="other.gguf").check)[:2] == ("no_file", "file")


def test_a_public_repository_needs_no_token(ask: Ask, host: GitHost) -> None:
    host.token = None
    assert ask(token=None).check().facts


def test_a_large_file_that_was_never_pushed_is_said(ask: Ask, host: GitHost, tmp_path: Path) -> None:
    host.lost = set(host.large)
    code, field, said = problem(ask().check)
    assert (code, field) == ("gone", "path")
    assert "Push it again" in said


def test_a_name_that_is_no_text_is_never_offered(ask: Ask, host: GitHost, tmp_path: Path) -> None:
    repository = host.folder / "lab/tiny.git"
    blob = git(repository, "hash-object", "-w", "--stdin", given=b"x")
    listing = subprocess.run(
        ["git", "-C", str(repository), "mktree", "-z"],
        input=b"100644 blob %b\tna\xefve.txt\0" % blob.encode() + b"100644 blob %b\tmodel.py\0" % blob.encode(),
        capture_output=True,
        check=True,
    )
    made = git(repository, "commit-tree", "-m", "odd", listing.stdout.decode().strip())
    git(repository, "update-ref", "refs/heads/odd", made)
    assert [file.path for file in ask(revision="odd").files()] == ["model.py"]


def test_submodules_are_said_and_links_not_followed(ask: Ask, host: GitHost) -> None:
    blob = git(host.folder / "lab/tiny.git", "hash-object", "-w", "--stdin", given=b"/etc/passwd")
    lines = [f"160000 {'1' * 40}\tmodel", f"120000 {blob}\tlink"]
    host.commit_index("lab/tiny", lines)
    code, field, said = problem(ask().check)
    assert (code, field) == ("submodule", "path")
    assert "“model”" in said


@pytest.mark.parametrize(
    "url",
    [
        "http://git.example/a/b.git",
        "file:///etc",
        "/srv/git/a.git",
        "ext::sh -c id",
        "git://git.example/a",
        "ssh://-oProxyCommand=id/a",
        "-oProxyCommand=id:a",
        "https://user:password@git.example/a",
        "https://git.example",
        "https://ghp_abcdefgh@git.example/a",
        "https://git.example/a\n--upload-pack=id",
        "",
    ],
)
def test_other_protocols_and_tricks_are_no_addresses(url: str, tmp_path: Path) -> None:
    settings = {"kind": "git", "url": url}
    found = problem(lambda: source_for(settings, store=tmp_path, token=None, hub="").check())
    assert found[:2] == ("malformed_url", "url")
    assert "password@" not in found[2]
    assert "ghp_" not in found[2]


def test_a_server_that_says_more_than_it_is_asked_for_is_not_kept_in_memory(
    ask: Ask, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless, source = Fault("/objects/batch", status=200, body=b" " * 1_000_000, method="POST"), ask()
    monkeypatch.setattr(network, "MOST", 100_000)
    front.fault(endless)
    assert problem(source.check)[:2] == ("too_long", "url")
    assert source.check().facts
    monkeypatch.setattr(network, "MOST", 40)  # a line of a reference is longer
    assert problem(ask().check)[:2] == ("too_long", "url")


def test_git_itself_keeps_no_endless_list_of_names(
    ask: Ask, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_repository, "MEMORY", 48 << 20)
    assert ask().check().facts
    lines = b"".join(b"0400%040x refs/heads/%0967d\n" % (n, n) for n in range(1, 80_000))
    headers = {"Content-Type": "application/x-git-upload-pack-advertisement"}
    body = b"001e# service=git-upload-pack\n0000" + lines + b"0000"
    front.fault(Fault("info/refs", status=200, headers=headers, body=body))
    assert problem(ask().check)[:2] == ("too_long", "url")


def test_what_is_no_git_server_is_said(ask: Ask, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    front.fault(Fault("info/refs", status=200, body=b"<html>\n<body>Welcome\n"))
    assert problem(ask().check)[:2] == ("not_git", "url")
    front.fault(Fault("info/refs", status=503))
    assert problem(ask().check)[:2] == ("busy", "")
    front.fault(Fault("info/refs", status=403))
    assert problem(ask().check)[:2] == ("forbidden", "token_secret")
    assert problem(ask(url="https://127.0.0.1:9/a.git").check)[:2] == ("no_network", "url")
    assert problem(ask(url="https://nowhere.invalid/a.git").check)[:2] == ("no_network", "url")
    assert problem(ask(url="https://169.254.169.254/a.git").check)[:2] == ("address_refused", "url")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert problem(ask().check)[:2] == ("bad_certificate", "url")
