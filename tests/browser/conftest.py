"""A real Chromium for the browser journeys. Missing: the tests skip and say so; in CI they fail."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.screens import folder

CHROMIUM = os.environ.get("CHROMIUM", "chromium")
PATIENCE = 90_000  # ms, for what a real model and a busy machine take; Playwright's own 5 s are too few for that
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which(CHROMIUM)
    if found:
        return found
    reason = f"no {CHROMIUM} on this machine: install it (apt-get install chromium) or set CHROMIUM to its path"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(
        viewport={"width": 1440, "height": 900}, locale="en-GB", timezone_id="Asia/Kolkata"
    )
    opened.set_default_timeout(PATIENCE)
    yield opened
    opened.close()


def of_others(said: ConsoleMessage) -> bool:
    """Plotly's style of maps, which we don't draw, and the style by which Playwright stills a page it shoots; or a
    container elsewhere on this machine came or went, at which a browser drops what it asked for.
    """
    shot = folder() is not None and said.text.startswith("Applying inline style")
    return shot or "net::ERR_NETWORK_CHANGED" in said.text or "plotly" in str(said.location.get("url"))


def of_replaced_requests(said: ConsoleMessage) -> bool:
    """What htmx calls an error when newer input, or leaving the page, ends a request.

    Of one that failed while somebody looks, the browser speaks too.
    """
    return said.text.startswith(("htmx:afterRequest,", "htmx:sendAbort,", "htmx:sendError,"))


def _breach(said: ConsoleMessage) -> bool:
    """A breach of the content policy that is our own."""
    return "Content Security Policy" in said.text and not of_others(said)


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page on which any error in its scripts, or a breach of its content policy, fails the test."""
    wrong: list[str] = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if _breach(said) else None)
    yield opened
    assert not wrong, "\n".join(wrong)
