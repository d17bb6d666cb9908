"""A download shows how far it is, goes on where it ended, arrives whole or not at all, and ends."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from endpoints.sources import SourceProblem
from endpoints.sources import store as storage
from endpoints.sources.download import PIECE
from tests.endpoints.sources.conftest import LARGE, REPOS, SHARDS, SMALL, Ask
from tests.hub import Fault, Hub, Repo
from tests.wait import until

FILE = "tiny.Q4_K_M.gguf"


class Seen:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))


class Cancelled(Exception):
    pass


def problem_with(
    ask: Ask, into: Path, name: str = "lab/tiny-GGUF", files: tuple[str, ...] = (FILE,)
) -> SourceProblem:
    with pytest.raises(SourceProblem) as caught:
        ask(name).fetch(into, Seen(), files)
    return caught.value


def test_a_model_arrives_under_its_own_name(ask: Ask, tmp_path: Path) -> None:
    path = ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE])
    assert path.is_absolute()
    assert path.name == FILE
    assert path.read_bytes() == LARGE


def test_progress_counts_bytes_of_the_whole_from_the_start(ask: Ask, tmp_path: Path) -> None:
    seen = Seen()
    ask("lab/split-GGUF").fetch(tmp_path, seen, ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"])
    total = sum(len(shard) for shard in SHARDS)
    assert seen.steps[0] == (0, total)
    assert seen.steps[-1] == (total, total)
    assert {step[1] for step in seen.steps} == {total}
    assert [step[0] for step in seen.steps] == sorted(step[0] for step in seen.steps)


def test_shards_lie_side_by_side_and_the_first_is_named(ask: Ask, tmp_path: Path) -> None:
    path = ask("lab/split-GGUF").fetch(tmp_path, Seen(), ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"])
    assert path.name == "big-00001-of-00002.gguf"
    assert (path.parent / "big-00002-of-00002.gguf").read_bytes() == SHARDS[1]


def test_a_second_fetch_asks_for_no_bytes(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    first = ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE])
    before = len(hub.asked("/cdn/"))
    assert ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE]) == first
    assert len(hub.asked("/cdn/")) == before


def test_a_new_commit_with_the_same_weights_asks_for_no_bytes(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    first = ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE])
    before = len(hub.asked("/cdn/"))
    hub.repos["lab/tiny-GGUF"] = Repo({**REPOS["lab/tiny-GGUF"].files, "README.md": b"better"})
    second = ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE])
    assert second != first
    assert second.samefile(first)
    assert len(hub.asked("/cdn/")) == before


def test_a_cut_connection_is_taken_up_where_it_ended(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("/cdn/", cut_after=300_000))
    path = ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE])
    assert path.read_bytes() == LARGE
    starts = [request.headers.get("Range") for request in hub.asked("/cdn/")]
    assert starts[0] is None
    assert starts[1] is not None
    assert 0 < int(starts[1].removeprefix("bytes=").removesuffix("-")) <= 300_000


def test_a_cancelled_fetch_goes_on_the_next_time(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    def cancel(done: int, total: int) -> None:
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        ask("lab/tiny-GGUF").fetch(tmp_path, cancel, [FILE])
    seen = Seen()
    assert ask("lab/tiny-GGUF").fetch(tmp_path, seen, [FILE]).read_bytes() == LARGE
    assert hub.asked("/cdn/")[-1].headers["Range"].startswith("bytes=")
    assert not list((tmp_path / "partial").iterdir())


def test_a_server_that_cannot_resume_starts_over(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("/cdn/", cut_after=300_000))
    hub.fault(Fault("/cdn/", whole=True))
    assert ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE]).read_bytes() == LARGE


def test_a_page_in_place_of_the_rest_loses_nothing_of_what_is_here(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("/cdn/", cut_after=300_000))
    hub.fault(Fault("/cdn/", body=b"<html>Accept the terms of this network</html>"))
    assert ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE]).read_bytes() == LARGE
    assert [request.headers.get("Range") for request in hub.asked("/cdn/")][-1] == "bytes=300000-"


@pytest.mark.parametrize("status", [429, 503])
def test_a_passing_refusal_is_tried_again(ask: Ask, hub: Hub, tmp_path: Path, status: int) -> None:
    hub.fault(Fault("/resolve/", status=status))
    assert ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE]).read_bytes() == LARGE


def test_a_download_that_stands_still_is_given_up(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("/cdn/", pause=1.0, times=9))
    with pytest.raises(SourceProblem) as caught:
        replace(ask("lab/tiny-GGUF"), stall=0.3).fetch(tmp_path, Seen(), [FILE])
    problem = caught.value
    assert (problem.code, problem.passing) == ("stalled", True)
    assert "it goes on from there" in problem.message


def test_a_slow_large_file_is_watched_as_closely_as_a_small_one(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    hub.repos["lab/large"] = Repo({"large.gguf": LARGE * 3})
    hub.fault(Fault("/cdn/", pause=0.1))
    seen: list[int] = []

    def cancel(done: int, total: int) -> None:
        seen.append(done)
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        ask("lab/large").fetch(tmp_path, cancel, ["large.gguf"])
    assert 0 < seen[-1] < PIECE, "it was only seen long after bytes had come"


def test_damaged_bytes_are_thrown_away_and_said(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("/cdn/", corrupt=True))
    problem = problem_with(ask, tmp_path)
    assert (problem.code, problem.passing) == ("damaged", True)
    assert not list(tmp_path.rglob("*.gguf"))
    assert ask("lab/tiny-GGUF").fetch(tmp_path, Seen(), [FILE]).read_bytes() == LARGE


def test_a_partial_file_longer_than_the_whole_starts_over(ask: Ask, tmp_path: Path) -> None:
    source = ask("lab/tiny-GGUF")
    sha256 = next(file.sha256 for file in source.files() if file.path == FILE)
    partial = storage.partial_path(tmp_path, str(sha256))
    partial.parent.mkdir()
    partial.write_bytes(b"x" * (len(LARGE) + 1))
    assert source.fetch(tmp_path, Seen(), [FILE]).read_bytes() == LARGE


def test_a_full_disk_is_found_out_before_the_first_byte(
    ask: Ask, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SPARE", 1 << 60)
    problem = problem_with(ask, tmp_path)
    assert (problem.code, problem.field) == ("disk_full", "file")
    assert hub.asked("/cdn/") == []


def test_access_that_was_taken_away_is_said(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    assert problem_with(ask, tmp_path, "lab/gated", ("tiny.gguf",)).code == "gated"


def test_a_file_that_is_not_there(ask: Ask, tmp_path: Path) -> None:
    assert problem_with(ask, tmp_path, files=("nothing.gguf",)).code == "no_file"


def test_the_token_reaches_the_download(ask: Ask, tmp_path: Path) -> None:
    path = ask("lab/private", token="hf_member").fetch(tmp_path, Seen(), ["tiny.gguf"])
    assert path.read_bytes() == SMALL


def test_a_path_that_leaves_its_folder_is_never_offered(ask: Ask, hub: Hub) -> None:
    hub.repos["lab/evil"] = Repo({"../../evil.gguf": SMALL, "/etc/evil.gguf": SMALL, "good.gguf": SMALL})
    assert [file.path for file in ask("lab/evil").files()] == ["good.gguf"]


def test_small_files_without_a_digest_arrive_too_and_once(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    assert ask("lab/tiny").fetch(tmp_path, Seen(), ["config.json"]).read_bytes() == b"{}"
    asked = len(hub.asked("/resolve/"))
    assert ask("lab/tiny").fetch(tmp_path, Seen(), ["config.json"]).read_bytes() == b"{}"
    assert len(hub.asked("/resolve/")) == asked


def test_a_small_file_is_never_a_mixture_of_what_two_answers_said(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    right, page = b'{"a": "' + b"x" * 40_000 + b'"}', b"<html>" + b"y" * 20_000
    hub.repos["lab/small"] = Repo({"config.json": right})
    source = ask("lab/small")
    assert source.files()
    hub.fault(Fault("/resolve/", body=page))  # and then the rest of the file
    with pytest.raises(SourceProblem) as caught:
        source.fetch(tmp_path, Seen(), ["config.json"])
    assert (caught.value.code, caught.value.passing) == ("damaged", True)
    assert source.fetch(tmp_path, Seen(), ["config.json"]).read_bytes() == right


def test_an_answer_that_is_longer_than_the_file_leaves_nothing(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    right = b'{"a": "' + b"x" * 40_000 + b'"}'
    hub.repos["lab/small"] = Repo({"config.json": right})
    source = ask("lab/small")
    hub.fault(Fault("/resolve/", body=b"<html>" + b"y" * 90_000, pause=0.05))
    with pytest.raises(SourceProblem) as caught:
        source.fetch(tmp_path, Seen(), ["config.json"])
    assert caught.value.code == "damaged"
    assert source.fetch(tmp_path, Seen(), ["config.json"]).read_bytes() == right


def test_a_folder_of_a_repository_arrives_whole_for_an_engine_of_folders(
    ask: Ask, hub: Hub, tmp_path: Path
) -> None:
    hub.repos["lab/many"] = Repo({"a/config.json": b"{}", "a/weights/w.bin": b"w", "b/config.json": b"no"})
    source = ask("lab/many", path="/a/")
    found = source.check("pytorch")
    assert [file.path for file in found.files] == ["config.json", "weights/w.bin"]
    first = source.fetch(tmp_path, Seen(), [file.path for file in found.files])
    assert first.read_bytes() == b"{}"
    assert (first.parent / "weights/w.bin").read_bytes() == b"w"
    with pytest.raises(SourceProblem) as caught:
        ask("lab/many", path="c").check("pytorch")
    assert (caught.value.code, caught.value.field) == ("no_path", "path")


def test_two_at_once_fetch_one_file_once_and_both_see_progress(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    hub.fault(Fault("/cdn/", pause=0.01))
    seen, paths = [Seen(), Seen()], list[Path]()

    def fetch(mine: Seen) -> None:
        paths.append(ask("lab/tiny-GGUF").fetch(tmp_path, mine, [FILE]))

    threads = [threading.Thread(target=fetch, args=(mine,)) for mine in seen]
    threads[0].start()
    until(lambda: hub.asked("/cdn/"), what="the first one to begin")
    threads[1].start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(paths) == 2
    assert paths[0] == paths[1]
    assert len(hub.asked("/cdn/")) == 1
    assert all(mine.steps[-1] == (len(LARGE), len(LARGE)) for mine in seen)
