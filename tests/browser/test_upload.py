"""A model's files go up in a real browser: cut by a reload, taken up where they ended, published."""

import hashlib
import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect
from pytest_django.live_server_helper import LiveServer

from endpoints.models import ModelVersion, RegisteredModel, Upload, VersionDraft
from tests import make
from tests.browser.screens import shoot
from tests.wait import until
from tir_console.up import catalogue

# Playwright's loop runs in this thread, and Django would take it for its own.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
pytestmark = [pytest.mark.django_db(transaction=True)]
PIECE = 8 << 20
SLOW = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4 << 20}
MODEL = "class Model:\n    def load(self, path): ...\n    def predict(self, inputs): return inputs\n"


@pytest.fixture
def draft(page: Page, live_server: LiveServer) -> VersionDraft:
    """Alice looks at a new version of her model."""
    alice = make.user("alice")
    made = VersionDraft.begin(RegisteredModel.open(make.project(owner=alice), "moods", by=alice), by=alice)
    page.goto(live_server.url + catalogue.login_link(alice))
    button = page.locator("main button")
    if button.count():
        button.first.click()
    page.goto(f"{live_server.url}/projects/alpha/models/moods/drafts/{made.pk}/")
    return made


def test_an_upload_that_a_reload_cut_goes_on_where_it_ended(
    page: Page, draft: VersionDraft, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"\x02" + b"\0" * 7 + b"{}" + os.urandom(4 * PIECE))
    network = page.context.new_cdp_session(page)
    network.send("Network.emulateNetworkConditions", SLOW)
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("input[data-files]").first.set_input_files(file)
    expect(page.locator("[data-uploads] .nowrap")).to_have_text(re.compile(r"[KM]iB/s · .* left"))
    network.send("Network.emulateNetworkConditions", SLOW | {"uploadThroughput": 2 << 20})  # far from done
    until(lambda: Upload.objects.get().offset >= PIECE, seconds=120, every=0.1, what="a piece to arrive")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("[data-uploads] .nowrap")).to_have_text(re.compile("Paused at"))
    shoot(page, "upload-paused")
    page.reload()
    expect(page.locator("[data-unfinished]")).to_contain_text("Choose the file again to go on")
    network.send("Network.emulateNetworkConditions", SLOW | {"uploadThroughput": -1})
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "/uploads/" in request.url else None)
    with page.expect_navigation():
        page.locator("input[data-files]").first.set_input_files(file)
    assert [request.method for request in asked][:2] == ["HEAD", "PATCH"]
    assert int(asked[1].headers["upload-offset"]) >= PIECE
    assert Upload.objects.get().sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_was_removed_on_its_way_is_not_begun_again(
    page: Page, draft: VersionDraft, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(os.urandom(PIECE))
    network = page.context.new_cdp_session(page)
    network.send("Network.emulateNetworkConditions", SLOW | {"uploadThroughput": 64 << 10})  # minutes for a piece
    page.clock.install()
    with page.expect_request(lambda request: request.method == "PATCH"):
        page.locator("input[data-files]").first.set_input_files(tmp_path / "model.bin")
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.locator("[data-uploads]").get_by_role("button", name="Remove").click()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "/uploads/" in request.url else None)
    page.clock.run_for(20_000)  # a piece that was lost is tried again in this time
    expect(page.locator("[data-uploads] li")).to_have_count(0)
    assert not asked
    assert not Upload.objects.exists()


def test_a_folder_goes_up_whole_and_becomes_a_version(page: Page, draft: VersionDraft, tmp_path: Path) -> None:
    folder = tmp_path / "moods"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "weights/words.txt").write_text("good\nfine\n")
    with page.expect_navigation():
        page.locator("input[webkitdirectory]").set_input_files(folder)
    expect(page.locator("#files")).to_contain_text("weights/words.txt")
    expect(page.locator("main")).to_contain_text("Class Model with load, predict.")
    shoot(page, "version-draft")
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/versions/1/")
    shoot(page, "version")
    assert [file["path"] for file in ModelVersion.objects.get().files] == ["model.py", "weights/words.txt"]


def test_a_file_that_is_there_already_is_told_at_its_line(page: Page, draft: VersionDraft, tmp_path: Path) -> None:
    draft.expect("a.txt", 0, by=None)
    Upload.objects.update(sha256=hashlib.sha256(b"").hexdigest())
    (tmp_path / "a.txt").write_text("other")
    page.locator("input[data-files]").first.set_input_files(tmp_path / "a.txt")
    expect(page.locator("[data-uploads] .error")).to_contain_text("is in this draft already")
