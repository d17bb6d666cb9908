"""What a person does on the console's pages, by mouse and keyboard, for the tests of whole journeys."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Locator, Page, WebSocket, expect

from endpoints.wizard.steps import FORM_STEPS
from tests.browser.screens import shoot
from tests.stack.whole import Stack

# Presses of the mouse: a click may also come from a key, or from a label to its box.
COUNT_CLICKS = """
addEventListener("pointerdown", () => {
  sessionStorage.clicks = Number(sessionStorage.clicks ?? 0) + 1;
}, true);
"""


@dataclass
class Person:
    """Somebody at a browser, logged in at a console."""

    page: Page
    stack: Stack
    sent: list[dict[str, Any]] = field(default_factory=list)  # over the page's websocket

    def __post_init__(self) -> None:
        self.page.on("websocket", self._listen)
        self.page.context.add_init_script(COUNT_CLICKS)
        self.stack.login(self.page)
        self.page.evaluate("sessionStorage.clear()")  # what the login took doesn't count

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self.sent.append(json.loads(frame)))

    @property
    def verbs(self) -> list[str]:
        """The actions that went over the websocket."""
        return [message["verb"] for message in self.sent if message["type"] == "action"]

    @property
    def clicks(self) -> int:
        return int(self.page.evaluate("Number(sessionStorage.clicks ?? 0)"))

    # ── the list and the wizard ─────────────────────────────────────────────────────────────────
    def list_endpoints(self) -> None:
        self.page.goto(f"{self.stack.console_url}/projects/demo/endpoints/")

    def begin(self) -> int:
        """To the wizard's first step. Presses of the mouse it took: one, and one more past a draft."""
        self.list_endpoints()
        self.page.get_by_role("link", name="Create endpoint").first.click()
        self.page.wait_for_url(re.compile("/endpoints/new/"))
        afresh = self.page.get_by_role("button", name="Start afresh")
        drafts = bool(afresh.count())
        if drafts:
            afresh.click()
        self.page.wait_for_url("**/basics/")
        return 1 + drafts

    def enter(self) -> None:
        """Go on as somebody who uses only the keyboard does."""
        field = self.page.locator(
            "#step-fields :is(input, select):not([type=hidden], [readonly], [disabled], [aria-disabled=true])"
        )
        field.locator("visible=true").first.focus()
        self.page.keyboard.press("Enter")

    def walk(self, *, shots: str = "") -> None:
        """From the first step to the summary, each with what it proposes, by Enter alone."""
        for step in FORM_STEPS:
            self.page.wait_for_url(f"**/{step}/")
            if shots:
                shoot(self.page, f"{shots}-{step}")
            self.enter()
        self.page.wait_for_url("**/summary/")

    def confirm(self) -> None:
        """Tick that the cost was seen."""
        self.page.get_by_label("I have seen the cost").focus()
        self.page.keyboard.press("Space")

    # ── an endpoint's page ──────────────────────────────────────────────────────────────────────
    def open(self, name: str, tab: str = "") -> None:
        query = f"?tab={tab}" if tab else ""
        self.page.goto(f"{self.stack.console_url}/projects/demo/endpoints/{name}/{query}")

    def tab(self, label: str) -> None:
        self.page.locator("nav.tabs").get_by_role("link", name=label).click()

    def sees(self, status: str) -> None:
        expect(self.page.locator("h1 .status")).to_have_text(status)

    def sees_ready(self, count: int) -> None:
        ready = self.page.locator("#instances .status", has_text=re.compile("^Ready$"))
        expect(ready).to_have_count(count)

    def dialog(self, opener: str) -> Locator:
        """Open a dialog by its opener, which may stand in the menu."""
        link = self.page.locator(f'#actions [data-dialog="{opener}"]')
        if not link.is_visible():
            self.page.locator("#actions summary").click()
        link.click()
        return self.page.locator(f"dialog#{opener}[open]")

    def scale(self, instances: int) -> None:
        dialog = self.dialog("scale")
        dialog.get_by_label("Instances").fill(str(instances))
        self.page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        self.says(f"to {instances} instances")

    def says(self, text: str) -> None:
        """A toast with this text comes."""
        expect(self.page.locator("#toasts")).to_contain_text(text)

    def tile(self, label: str) -> Locator:
        return self.page.locator(".tile", has_text=label).locator(".tile-value")
