"""Screenshots to look at: one page at two widths, light and dark, into the folder SCREENS_DIR names."""

import os
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.wait import until

WIDTHS = {1440: 900, 390: 844}
THEMES = ("light", "dark")
DRAWN = """
[...document.querySelectorAll("[data-plot]")].every(
  (plot) => plot.querySelector("svg") || plot.getBoundingClientRect().top > innerHeight
)
"""


def folder() -> Path | None:
    """Where screenshots go; None when nobody asked for any."""
    named = os.environ.get("SCREENS_DIR")
    return Path(named) if named else None


def _settle(page: Page) -> None:
    """Until the page is drawn: fonts ready, and each chart in sight has its plot.

    Asked again and again from here: the page's policy forbids the evaluation that Playwright's own waiting needs.
    """
    page.evaluate("scrollTo(0, 0)")  # what sticks to the top would else cover the middle
    page.evaluate("document.fonts.ready.then(() => true)")
    until(lambda: page.evaluate(DRAWN), seconds=30, what="the charts to be drawn")


def _variants(page: Page) -> Iterator[str]:
    before = page.viewport_size
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            _settle(page)
            yield f"{width}-{theme}"
    page.emulate_media(color_scheme="no-preference")
    if before:
        page.set_viewport_size(before)


def shoot(page: Page, name: str) -> list[Path]:
    """Take `name` as it stands, at each width and theme; the page is left as it was. [] without SCREENS_DIR."""
    into = folder()
    if into is None:
        return []
    into.mkdir(parents=True, exist_ok=True)
    taken = []
    for variant in _variants(page):
        path = into / f"{name}-{variant}.png"
        page.screenshot(path=path, full_page=True)
        taken.append(path)
    return taken


def shoot_url(browser: Browser, url: str, name: str) -> list[Path]:
    """The same for an address that needs no login."""
    page = browser.new_page()
    try:
        page.goto(url)
        return shoot(page, name)
    finally:
        page.close()
