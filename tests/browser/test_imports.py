"""A version is imported in a real browser on the whole console: refused, mended, brought, and deployed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.screens import shoot
from tests.browser.story import Person
from tests.hub import Fault, Repo
from tests.model_files import smollm2
from tests.stack.whole import Stack

pytestmark = pytest.mark.model
REPO, MODEL, ENDPOINT = "lab/gated", "brought", "from-import"
TOKEN = "hf_the-token-of-this-test"
PHONE: ViewportSize = {"width": 390, "height": 844}
NAMELESS = """
[...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, a[href]")]
  .filter((it) => it.checkVisibility() && !it.closest("[aria-hidden=true]"))
  .filter((it) => !(it.labels?.length || it.ariaLabel || it.textContent.trim() || it.title))
  .map((it) => it.outerHTML)
"""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def person(page: Page, stack: Stack) -> Iterator[Person]:
    """Somebody whose Hub has a repository that wants a token."""
    model = smollm2().read_bytes() + bytes(32)  # the demo's own lies here already, and wouldn't be fetched
    files = {"README.md": b"# Brought", "smol.gguf": model}
    stack.hub.repos[REPO] = Repo(files, gated="manual")
    stack.hub.tokens[TOKEN] = {REPO}
    yield Person(page, stack)
    stack.hub.faults.clear()
    stack.delete(ENDPOINT)
    stack.api("DELETE", f"models/{MODEL}")


def to_the_form(person: Person) -> None:
    """From the first page to the form of an import, by keyboard alone."""
    page = person.page
    person.list_endpoints()
    page.get_by_role("link", name="Models", exact=True).press("Enter")
    page.get_by_role("link", name="New model").first.press("Enter")
    page.get_by_label("Name", exact=True).fill(MODEL)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/models/{MODEL}/")
    page.get_by_role("link", name="Import a version").press("Enter")
    page.wait_for_url("**/import/")


def looks(page: Page, name: str) -> None:
    """Each control has a name, and on a phone nothing lies beside the page."""
    shoot(page, name)
    assert page.evaluate(NAMELESS) == []
    assert page.locator("h1").count() == 1
    before = page.viewport_size
    page.set_viewport_size(PHONE)
    assert page.evaluate(TOO_WIDE) <= 0
    assert before
    page.set_viewport_size(before)


def store(page: Page, name: str, value: str) -> None:
    """Store a credential further down in the form; what was typed above stays."""
    page.get_by_role("link", name="Store a new token").first.press("Enter")
    new = page.locator("#new-secret")
    new.get_by_role("button", name="Store and choose").press("Enter")
    expect(new.get_by_label("Name")).to_be_focused()
    new.get_by_label("Name").fill(name)
    new.get_by_label("Value").fill(value)
    new.get_by_role("button", name="Store and choose").press("Enter")
    expect(page.locator("#toasts")).to_contain_text("is stored and chosen")  # first: it goes by itself
    expect(page.get_by_role("combobox", name="Access token")).to_have_value(name)
    expect(page.get_by_role("textbox", name="Model ID")).to_have_value(REPO)


def is_refused(page: Page) -> None:
    """The connection is tested, and the credential is what to mend: the focus stands there."""
    page.get_by_role("button", name="Test connection").press("Enter")
    token = page.get_by_role("combobox", name="Access token")
    expect(token).to_have_attribute("aria-invalid", "true")
    expect(token).to_be_focused()


def test_a_gated_model_is_imported_through_a_wrong_token_and_an_expired_one_and_deployed(person: Person) -> None:
    page, hub = person.page, person.stack.hub
    to_the_form(person)
    looks(page, "import-form")
    page.get_by_role("textbox", name="Model ID").fill(REPO)
    is_refused(page)
    store(page, "typed-wrong", "hf_of-somebody-else")
    is_refused(page)
    looks(page, "import-refused")
    store(page, "of-the-lab", TOKEN)
    page.get_by_role("button", name="Test connection").press("Enter")
    expect(page.locator("#look")).to_contain_text("Reached just now")
    looks(page, "import-reached")

    slow = Fault("/cdn/", times=99, pause=0.02, cut_after=8 << 20)
    hub.fault(slow)
    page.get_by_role("button", name="Import", exact=True).press("Enter")
    page.wait_for_url("**/imports/**")
    page.evaluate("window.still = true")
    expect(page.locator("#progress .progress-line")).to_contain_text("/s · ")
    looks(page, "import-running")
    hub.tokens[TOKEN] = set()
    slow.pause = 0
    expect(page.get_by_role("alert")).to_contain_text("It failed.")
    assert page.evaluate("window.still"), "it was told without loading the page again"
    looks(page, "import-failed")

    hub.tokens[TOKEN], slow.times = {REPO}, 0
    page.get_by_role("button", name="Try again").press("Enter")
    page.wait_for_url("**/versions/1/")
    expect(page.locator("#files")).to_contain_text("smol.gguf")
    expect(page.locator(".lineage")).to_contain_text(f"{REPO} on Hugging Face at {hub.repos[REPO].commit}")
    looks(page, "version-imported")

    page.get_by_role("button", name="Deploy", exact=True).press("Enter")
    page.get_by_label("Name", exact=True).fill(ENDPOINT)
    page.get_by_role("button", name="Keep the rest as proposed").press("Enter")
    page.wait_for_url("**/summary/")
    person.confirm()
    page.get_by_role("button", name="Deploy", exact=True).press("Enter")
    page.wait_for_url(f"**/endpoints/{ENDPOINT}/")
    person.sees("Active")
    assert TOKEN not in page.content() + person.stack.words()
