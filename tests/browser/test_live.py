"""What the pages' own scripts promise, in a real browser against a server that is only a script of the test."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.template import Engine
from django.template.context import make_context
from django.test import RequestFactory
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.browser.conftest import PATIENCE
from tests.wait import until

ORIGIN = "http://127.0.0.1:9"
MORNING = datetime(2026, 11, 25, 9, tzinfo=UTC)
POLICY = (
    "default-src 'self'; script-src 'self'; img-src 'self' data:;"
    " style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
)
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
PAGE = """
{% extends "base.html" %}
{% block content %}
  <div id="status" hx-get="/status" hx-swap="innerHTML" data-refresh="status">first</div>
  <div id="actions" hx-get="/actions" data-refresh="actions">
    {% piece "menu" label="More actions" %}<a href="#stop">Stop</a>{% endpiece %}
  </div>
  {% include "pieces/kpi_tile.html" with label="p95" value="847" unit="ms" tick="tiles.p95" only %}
  {% include "pieces/log_viewer.html" with id="logs" lines=lines instance="a" url="/logs" live=True only %}
  {% include "pieces/code_tabs.html" with id="call" snippets=snippets only %}
  <a href="#delete" data-dialog="delete">Delete it</a>
  {% piece "confirm_dialog" id="delete" title="Delete?" action="/x/" typed="chat" verb="delete" button="Delete" %}
    It is gone then.
  {% endpiece %}
  <div id="tryit" hx-get="/tryit" hx-swap="outerHTML" data-refresh="tryit">
    {% include "pieces/try_it.html" with url="/chat" model="m" token_url="/token" reason="Later." only %}
  </div>
  {% include "pieces/choice_card.html" with name="m" value="cpu" title="A CPU" checked=True only %}
  {% include "pieces/choice_card.html" with name="m" value="gpu" title="A GPU" reason="No GPU here." only %}
{% endblock %}
"""
CHART = """
{% extends "base.html" %}
{% block content %}
  {% include "pieces/chart_card.html" with id="latency" title="Latency" figure=figure format="ms" only %}
  {% with none="No requests." yes=True %}
  {% include "pieces/chart_card.html" with id="requests" figure=still empty=none is_empty=yes from_zero=yes only %}
  {% endwith %}
{% endblock %}
"""


READY = """
<div id="tryit">{% include "pieces/try_it.html" with url="/chat" model="m" token_url="/token" only %}</div>
"""


@dataclass
class Server:
    """Answers the page; `socket` is the server's end of its websocket, `heard` what the page said on it."""

    page: Page
    socket: WebSocketRoute | None = None
    sockets: int = 0
    reachable: bool = True
    status: str = "second"
    fetches: list[str] = field(default_factory=list)
    late: list[Route] = field(default_factory=list)  # asked for, and not answered yet
    heard: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        if path.startswith("/static/"):
            found = finders.find(path.removeprefix("/static/"))
            route.fulfill(path=str(found), content_type=TYPES[path.rsplit(".", 1)[1]])
        elif path in ("/", "/chart"):
            body = html(PAGE if path == "/" else CHART)
            route.fulfill(body=body, content_type="text/html", headers={"Content-Security-Policy": POLICY})
        elif path == "/actions":
            self.late.append(route)
        elif path == "/tryit":
            route.fulfill(body=html(READY), content_type="text/html")
        else:
            self.fetches.append(path)
            body = json.dumps({"lines": []}) if path.startswith("/logs") else self.status
            route.fulfill(body=body, content_type="text/html")

    def meet(self, socket: WebSocketRoute) -> None:
        if not self.reachable:
            socket.close()
            return
        self.sockets += 1
        self.socket = socket
        socket.on_message(lambda message: self.heard.append(json.loads(message)))

    def say(self, **message: Any) -> None:
        assert self.socket is not None
        self.socket.send(json.dumps(message))

    def lines(self, *numbers: int) -> None:
        at = "2026-11-25T12:00:00+00:00"
        self.say(
            type="log",
            lines=[{"seq": n, "at": at, "stream": "stdout", "text": f"line {n}"} for n in numbers],
        )


def html(source: str) -> str:
    times = ["2026-11-25T12:00:00+00:00", "2026-11-25T12:00:01+00:00"]
    context = {
        "live_url": "/ws/",
        "csrf_token": "x",
        "figure": {"data": [{"type": "scatter", "name": "p95", "x": times, "y": [100, 200]}]},
        "still": {"data": [{"type": "scatter", "name": "2xx", "x": times, "y": [None, 0]}]},
        "lines": [],
        "snippets": [
            {"label": "curl", "language": "bash", "code": "curl x"},
            {"label": "Python", "language": "python", "code": "import x"},
        ],
    }
    request = RequestFactory().get("/")
    template = Engine.get_default().from_string(source)
    return str(template.render(make_context({**context, "request": request})))


@pytest.fixture
def quiet(page: Page) -> Server:
    """The server with no page open yet."""
    made = Server(page)
    page.route("**/*", made.answer)
    page.route_web_socket(re.compile("/ws/"), made.meet)
    page.clock.install(time=MORNING)
    return made


@pytest.fixture
def server(page: Page, quiet: Server) -> Server:
    """The page is open; its clock goes on only where a test lets it: a busy machine is no silent line."""
    page.clock.pause_at(MORNING + timedelta(hours=1))
    page.goto(ORIGIN)
    expect(page.locator("#call [role=tab]").first).to_be_visible()
    page.wait_for_selector("[data-log][data-begun]")
    _until(page, lambda: bool(quiet.heard), step=100)
    return quiet


def _until(page: Page, true: Callable[[], bool], *, step: int = 0) -> None:
    """Until it is true, while the page's clock goes on by `step` ms a look."""

    def look() -> bool:
        if not true() and step:
            page.clock.run_for(step)
        page.wait_for_timeout(1)  # Playwright's own messages come while it waits
        return true()

    until(look, seconds=PATIENCE / 1000, every=0.025, what="what the page does")


def test_a_doorbell_fetches_the_fragment_it_names_and_no_other(page: Page, server: Server) -> None:
    server.say(type="doorbell", what=["timeline"])
    server.say(type="doorbell", what=["status"])
    server.say(type="doorbell", what=["status"])
    page.clock.run_for(500)
    expect(page.locator("#status")).to_have_text("second")
    assert server.fetches.count("/status") == 1


def test_an_answer_that_was_on_its_way_shuts_no_menu(page: Page, server: Server) -> None:
    server.say(type="doorbell", what=["actions"])
    _until(page, lambda: bool(server.late), step=100)
    page.get_by_label("More actions").click()
    server.late.pop().fulfill(body="too early", content_type="text/html")
    expect(page.locator("#actions[data-fetching]")).to_have_count(0)
    expect(page.get_by_role("link", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    _until(page, lambda: bool(server.late), step=100)
    server.late.pop().fulfill(body="anew", content_type="text/html")
    expect(page.locator("#actions")).to_have_text("anew")


def test_a_part_that_could_not_be_had_is_asked_for_again(page: Page, server: Server) -> None:
    server.say(type="doorbell", what=["actions"])
    _until(page, lambda: bool(server.late), step=100)
    server.late.pop().abort("connectionreset")
    _until(page, lambda: bool(server.late), step=1000)
    server.late.pop().fulfill(status=503, body="Not now")
    _until(page, lambda: bool(server.late), step=1000)
    server.late.pop().fulfill(body="anew", content_type="text/html")
    expect(page.locator("#actions")).to_have_text("anew")


def test_what_was_typed_before_it_was_active_is_still_there_then(page: Page, server: Server) -> None:
    send, message = page.get_by_role("button", name="Send"), page.get_by_label("Message")
    expect(page.locator("[data-tryit][data-begun]")).to_be_attached()
    message.fill("How are you?")
    expect(send).to_have_attribute("aria-disabled", "true")
    message.blur()
    server.say(type="doorbell", what=["tryit"])
    _until(page, lambda: send.get_attribute("aria-disabled") is None, step=100)
    page.clock.run_for(1000)
    expect(message).to_have_value("How are you?")


def test_a_tick_changes_the_value_in_place(page: Page, server: Server) -> None:
    value = page.locator("[data-tick='tiles.p95']")
    server.say(type="tick", data={"tiles": {"p95": {"value": 1234.4, "tone": "warn", "tone_label": "Slow"}}})
    expect(value).to_have_text("1,234")
    expect(page.locator(".tile .status")).to_have_text("Slow")
    server.say(type="tick", data={"tiles": {"p95": "No requests"}})
    expect(value).to_have_text("No requests")
    expect(page.locator(".tile-unit")).to_be_hidden()


def test_a_chart_is_drawn_and_grows_to_the_right(page: Page, quiet: Server) -> None:
    page.goto(f"{ORIGIN}/chart")
    expect(page.locator("#chart-latency .scatterlayer path.js-line")).to_be_attached()
    _until(page, lambda: quiet.socket is not None)
    page.locator("#chart-latency summary").click()
    cells = page.locator("#chart-latency tbody tr td:nth-child(2)")

    def ticks(seen: Callable[[], bool], chart: str, value: int) -> None:
        """Until it is seen: they come every second, and one that the page missed is made good by the next."""

        def tick() -> bool:
            point = {"x": "2026-11-25T12:00:02+00:00", "y": [value]}
            quiet.say(type="tick", data={"charts": {chart: point}})
            return seen()

        _until(page, tick)

    ticks(lambda: cells.count() == 3, "latency", 300)
    ticks(lambda: cells.all_inner_texts() == ["310 ms", "200 ms", "100 ms"], "latency", 310)
    expect(page.get_by_text("No requests.")).to_be_visible()
    ticks(page.locator("#chart-requests [data-plot]").is_visible, "requests", 4)
    expect(page.get_by_text("No requests.")).to_be_hidden()


def test_a_lost_line_is_said_and_polled_and_mended_at_once(page: Page, server: Server) -> None:
    server.reachable = False
    assert server.socket is not None
    server.socket.close()
    banner, status = page.locator("#live-banner"), page.locator("#status")
    _until(page, lambda: "/status" in server.fetches, step=1000)
    expect(banner).to_contain_text(re.compile(r"Reconnecting….*last update \d+ s ago"))

    server.reachable, server.status = True, "third"
    _until(page, lambda: server.sockets > 1, step=2000)
    _until(page, lambda: banner.is_hidden() and status.inner_text() == "third", step=200)


def test_a_silent_line_is_a_dead_line(page: Page, server: Server) -> None:
    assert server.sockets == 1
    _until(page, lambda: server.sockets == 2, step=1000)


def test_a_line_that_only_beats_brings_no_numbers_and_that_is_said(page: Page, server: Server) -> None:
    server.say(type="tick", at="2026-11-25T04:00:00+00:00", data={})
    for _ in range(8):
        server.say(type="beat")
        page.clock.run_for(1000)
    expect(page.locator("#live-banner")).to_contain_text("Nothing measures now")


def test_a_page_that_lost_its_right_says_so_and_stops_asking(page: Page, server: Server) -> None:
    assert server.socket is not None
    server.socket.close(code=4404)
    _until(page, lambda: "no longer yours" in page.locator("#live-banner").inner_text(), step=1000)
    page.clock.run_for(60000)
    assert server.sockets == 1


def test_the_log_goes_on_where_it_was_after_a_break(page: Page, server: Server) -> None:
    server.lines(1, 2, 3)
    expect(page.locator(".log-line")).to_have_count(3)
    server.lines(2, 3, 4)  # sent twice, shown once
    expect(page.locator(".log-line .log-text")).to_have_text(["line 1", "line 2", "line 3", "line 4"])
    assert server.socket is not None
    server.heard.clear()
    server.socket.close()
    _until(page, lambda: bool(server.heard), step=1000)
    assert server.heard[0] == {"type": "follow", "instance": "a", "after": 4}


def test_lost_lines_leave_a_mark(page: Page, server: Server) -> None:
    server.say(type="log", lines=[{"gap": 12, "seq": 20}])
    expect(page.locator(".log-gap")).to_have_text("12 lines are missing here.")


def test_following_pauses_on_scrolling_up_and_goes_on_by_the_button(page: Page, server: Server) -> None:
    server.lines(*range(1, 200))
    expect(page.locator(".log-line")).to_have_count(199)
    page.locator("[data-log-lines]").evaluate("box => box.scrollTop = 600")
    expect(page.locator("[data-log-state]")).to_contain_text("paused")
    server.lines(200, 201)
    expect(page.locator("[data-log-newest]")).to_have_text("2 new")
    page.locator("[data-log-newest]").click()
    expect(page.locator("[data-log-state]")).to_contain_text("following")


def test_a_long_log_never_fills_the_page(page: Page, server: Server) -> None:
    for start in range(1, 3001, 500):
        server.lines(*range(start, start + 500))
    expect(page.locator("[data-seq='3000']")).to_be_attached()
    assert page.locator("[data-log-lines] > *").count() <= 2000


def test_search_leaves_the_lines_that_match(page: Page, server: Server) -> None:
    server.lines(*range(1, 31))
    page.locator("[data-log-search]").fill("LINE 2")
    expect(page.locator(".log-line:visible")).to_have_count(11)
    expect(page.locator("[data-log-hits]")).to_have_text("11 of 30 lines")
    expect(page.locator("mark").first).to_have_text("line 2")


def test_a_deletion_takes_the_name_and_goes_over_the_socket(page: Page, server: Server) -> None:
    page.get_by_role("link", name="Delete it").click()
    dialog = page.get_by_role("dialog", name="Delete?")
    button = dialog.get_by_role("button", name="Delete")
    expect(button).to_have_attribute("aria-disabled", "true")
    dialog.get_by_role("textbox").fill("chat")
    button.click()
    _until(page, lambda: any(message["type"] == "action" for message in server.heard))
    sent = server.heard[-1]
    assert (sent["verb"], sent["args"]) == ("delete", {"confirm": "chat"})
    server.say(type="result", id=sent["id"], ok=False, field="confirm", message="Not now.")
    expect(dialog.get_by_role("textbox")).to_have_js_property("validationMessage", "Not now.")
    dialog.get_by_role("textbox").fill("chat")
    button.click()
    _until(page, lambda: server.heard[-1]["type"] == "action" and server.heard[-1]["id"] != sent["id"])
    server.say(type="result", id=server.heard[-1]["id"], ok=True, message="Deleted.")
    expect(dialog).to_be_hidden()
    expect(page.locator("#toasts")).to_contain_text("Deleted.")


def test_code_tabs_go_by_arrow_keys(page: Page, server: Server) -> None:
    page.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Python")).to_contain_text("import x")
    expect(page.locator("#call-1")).to_be_hidden()


def test_what_cannot_be_chosen_stays_unchosen(page: Page, server: Server) -> None:
    page.get_by_text("A GPU").click(force=True)  # Playwright itself would wait for it to be enabled
    expect(page.locator("#id_m_cpu")).to_be_checked()
    expect(page.locator("#id_m_gpu")).not_to_be_checked()


@pytest.mark.parametrize("width", [1440, 1000, 390, 360])
def test_no_page_scrolls_sideways(page: Page, server: Server, width: int) -> None:
    server.lines(1)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
