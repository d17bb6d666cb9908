"""From an empty machine to a live endpoint and back, in a real browser on the whole console."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect

from tests.browser.conftest import of_others, of_replaced_requests
from tests.browser.screens import shoot
from tests.browser.story import Person
from tests.stack.whole import SESSION, Stack
from tests.wait import until

pytestmark = pytest.mark.model

DEMO = "smollm2-135m-instruct"  # the name that the wizard proposes


@pytest.fixture
def person(page: Page, stack: Stack) -> Iterator[Person]:
    """The demo's owner, with no endpoint there; an error in the browser's console fails the test."""
    wrong: list[str] = []

    def hear(said: ConsoleMessage) -> None:
        if said.type == "error" and not of_others(said) and not of_replaced_requests(said):
            wrong.append(f"{said.text} at {said.location} on {page.url}")

    page.on("console", hear)
    for name in stack.names():
        stack.delete(name)
    yield Person(page, stack)
    for name in stack.names():
        stack.delete(name)
    assert not wrong, "\n".join(wrong)


def test_the_whole_way(person: Person) -> None:
    person.list_endpoints()
    expect(person.page.locator("main")).to_contain_text("No endpoints yet")
    shoot(person.page, "journey-list-empty")
    create(person)
    watch_it_become_active(person)
    chat(person)
    key = make_a_key(person)
    call_by_curl_and_see_it_counted(person, key)
    scale_up(person)
    follow_the_log(person)
    see_the_metrics(person)
    scale_back_stop_and_start(person)
    delete(person)


def create(person: Person) -> None:
    page = person.page
    presses = person.begin()
    person.walk(shots="journey")
    shoot(page, "journey-summary")
    person.confirm()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/endpoints/{DEMO}/")
    assert person.clicks == presses, "only the way to the first step took the mouse"


def watch_it_become_active(person: Person) -> None:
    page = person.page
    page.evaluate("window.sameDocument = true")
    shoot(page, "journey-deploying")
    expect(page.locator("#timeline .phase-done")).to_have_count(6)
    person.sees("Active")
    person.sees_ready(1)


def chat(person: Person) -> None:
    """Stream one through the Try it box, with what it took."""
    page = person.page
    box = page.locator("[data-tryit][data-begun]")
    expect(box.get_by_role("button", name="Send")).to_be_enabled()  # its fragment came anew, and no other does
    box.locator("[data-tryit-text]").fill("Say hello in one sentence.")
    box.get_by_role("button", name="Send").click()
    answer = page.locator("[data-tryit-answer]")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    assert answer.evaluate("box => box.childNodes.length") > 1, "it came piece by piece"
    assert answer.inner_text().strip()
    meters = page.locator("[data-tryit-meters]")
    expect(meters.locator("[data-m=ttft]")).to_have_text(re.compile(r"^[\d,.]+ m?s$"))
    expect(meters.locator("[data-m=tokens]")).to_have_text(re.compile(r"^\d+ in, \d+ out$"))
    expect(meters.locator("[data-m=cost]")).to_have_text(re.compile(r"^₹[\d.]+$"))
    assert page.evaluate("window.sameDocument"), "without a reload"


def make_a_key(person: Person) -> str:
    page = person.page
    page.get_by_role("link", name="API keys").first.click()
    shoot(page, "journey-keys-empty")
    page.get_by_role("link", name="New key").first.click()
    page.get_by_label("Name", exact=True).fill("from the browser")
    page.keyboard.press("Enter")
    secret = page.locator("#secret").inner_text()
    assert re.fullmatch(r"tir_\w{8}_\S+", secret)
    shoot(page, "journey-key-made")
    page.get_by_role("link", name="I have copied it").click()
    expect(page.locator("#secret")).to_have_count(0)
    expect(page.locator("main")).to_contain_text("from the browser")
    assert secret not in page.content(), "it is shown once"
    shoot(page, "journey-keys")
    return secret


def call_by_curl_and_see_it_counted(person: Person, key: str) -> None:
    page = person.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    person.open(DEMO)
    page.evaluate("window.sameDocument = true")
    chart = page.locator("#chart-requests")
    expect(chart.locator("[data-plot] svg").first).to_be_attached()
    before = drawn(page)
    page.locator("#snippets-1").get_by_role("button", name="Copy the code").click()
    command = until(lambda: str(page.evaluate("navigator.clipboard.readText()")), what="the code to be copied")
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"TIR_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]
    expect(person.tile("p95")).to_have_text(re.compile(r"[\d,.]+ m?s"))
    chart.scroll_into_view_if_needed()  # else nothing is drawn
    # A busy console leaves ticks out, and with them points: that of a single call may be among them.
    call_until(person, lambda: drawn(page) > before, what="the chart to show calls")
    shoot(page, "journey-active")
    assert page.evaluate("window.sameDocument"), "without a reload"


def drawn(page: Page) -> float:
    """How many requests the chart of requests shows, over all its time."""
    sums = "(plot) => (plot.data ?? []).flatMap((trace) => trace.y).reduce((sum, value) => sum + value, 0)"
    return float(page.locator("#chart-requests [data-plot]").evaluate(sums))


def scale_up(person: Person) -> None:
    person.scale(2)
    assert person.verbs == ["scale"], "it went over the websocket"
    person.sees_ready(2)
    person.sees("Active")
    shoot(person.page, "journey-two-instances")


def follow_the_log(person: Person) -> None:
    page = person.page
    person.tab("Logs")
    lines = page.locator("[data-log-lines] .log-line")
    expect(page.locator("[data-log-state]")).to_contain_text("following")
    many = lines.count()
    call_until(person, lambda: lines.count() > many, what="lines")
    shoot(page, "journey-logs")
    page.get_by_role("button", name="Pause").click()
    call_until(person, lambda: "new" in str(page.locator("[data-log-newest]").text_content()), what="new lines")
    page.get_by_role("searchbox", name="Search in the lines shown").fill("no such words anywhere")
    expect(page.locator("[data-log-lines] .log-line:visible")).to_have_count(0)
    page.get_by_role("searchbox", name="Search in the lines shown").fill("")
    page.get_by_role("button", name="Follow").click()
    expect(page.locator("[data-log-state]")).to_contain_text("following")


def call_until(person: Person, seen: Callable[[], bool], *, what: str) -> None:
    """Call until that is seen, though chance decides which instance answers."""

    def call() -> bool:
        body = {"model": DEMO, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        assert person.stack.call(DEMO, "chat/completions", body).status_code == 200
        return seen()

    until(call, seconds=90, every=0.2, what=what)


def see_the_metrics(person: Person) -> None:
    person.tab("Metrics")
    expect(person.page.locator("[data-plot] svg").first).to_be_attached()
    shoot(person.page, "journey-metrics")


def scale_back_stop_and_start(person: Person) -> None:
    """While the list, in another tab, follows."""
    other = person.page.context.new_page()
    other.goto(f"{person.stack.console_url}/projects/demo/endpoints/")
    row = other.locator("#rows tr", has_text=DEMO)
    expect(row).to_contain_text("2/2")
    shoot(other, "journey-list")
    person.open(DEMO)
    person.scale(1)
    person.sees_ready(1)
    expect(row).to_contain_text("1/1")
    person.dialog("stop").get_by_role("button", name="Stop").click()
    person.sees("Stopped")
    shoot(person.page, "journey-stopped")
    expect(row).to_contain_text("Stopped")
    person.page.get_by_role("button", name="Start").click()
    person.sees("Active")
    expect(row).to_contain_text("Active")
    other.close()


def delete(person: Person) -> None:
    page = person.page
    dialog = person.dialog("delete")
    shoot(page, "journey-delete")
    dialog.get_by_role("textbox").fill("something else")
    button = dialog.get_by_role("button", name="Delete")
    expect(button).to_have_attribute("aria-disabled", "true")
    dialog.get_by_role("textbox").fill(DEMO)
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/demo/endpoints/")
    assert person.verbs[-1] == "delete"
    expect(page.locator("main")).to_contain_text("No endpoints yet")


# ── what must not be lost, and must not be made twice ────────────────────────────────────────────
def test_back_reload_and_a_second_tab_keep_what_was_typed(person: Person) -> None:
    page = person.page
    person.begin()
    page.locator("#id_name").fill("kept-by-me")
    person.enter()
    page.wait_for_url("**/method/")
    page.go_back()
    page.reload()
    expect(page.locator("#id_name")).to_have_value("kept-by-me")
    page.get_by_role("button", name="Keep the rest").click()
    page.wait_for_url("**/summary/")
    second = page.context.new_page()
    second.goto(page.url.replace("/summary/", "/scaling/"))
    second.get_by_label("Max instances").fill("3")
    second.keyboard.press("Enter")
    second.wait_for_url("**/environment/")
    second.close()
    page.reload()
    expect(page.locator("main")).to_contain_text("1 to 3 instances")
    expect(page.locator("main")).to_contain_text("kept-by-me")


def test_a_double_click_makes_one_endpoint_in_five_clicks(person: Person) -> None:
    page = person.page
    person.begin()
    page.get_by_role("button", name="Keep the rest").click()
    page.get_by_label("I have seen the cost").click()
    page.get_by_role("button", name="Deploy", exact=True).dblclick()
    page.wait_for_url(f"**/endpoints/{DEMO}/")
    assert person.clicks - 1 <= 5, "the second of the double click is no step"
    assert person.stack.names() == {DEMO}


def test_a_login_that_ends_on_the_way_loses_nothing(person: Person) -> None:
    page = person.page
    person.begin()
    page.locator("#id_name").fill("not-lost")
    expect(page.locator("#panel")).to_contain_text("not-lost")  # the draft has it
    page.context.clear_cookies(name=SESSION)
    person.enter()
    page.wait_for_url("**/login/**")
    onward = parse_qs(urlsplit(page.url).query)["next"][0]
    person.stack.login(page)
    page.goto(person.stack.console_url + onward)
    expect(page.locator("#id_name")).to_have_value("not-lost")


def test_the_keyboard_leads_from_any_page_to_what_one_can_name(person: Person) -> None:
    person.list_endpoints()
    page = person.page
    page.keyboard.press("/")
    page.keyboard.type("smol")
    hit = page.locator(".search-found").get_by_role("link", name="smollm2")
    expect(hit).to_be_visible()
    shoot(page, "search")
    page.keyboard.press("Escape")
    expect(hit).to_be_hidden()
    expect(page.get_by_role("searchbox")).to_have_value("smol")
    late: list[Route] = []

    def hold(answer: Route) -> None:
        late.append(answer)

    page.route("**/search/**", hold)
    with page.expect_request("**/search/**"):
        page.keyboard.type("l")
    expect(hit).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(hit).to_be_focused()
    with page.expect_event("requestfinished", lambda request: "/search/" in request.url):
        late[0].continue_()
    expect(hit).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/smollm2-135m-instruct/")


def test_without_javascript_one_can_create_scale_and_delete(browser: Browser, stack: Stack) -> None:
    for name in stack.names():
        stack.delete(name)
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        stack.login(page)
        page.get_by_role("link", name="Create endpoint").first.click()
        page.wait_for_url(re.compile("/endpoints/new/"))
        if page.get_by_role("button", name="Start afresh").count():
            page.get_by_role("button", name="Start afresh").click()
        page.get_by_role("button", name="Keep the rest").click()
        page.get_by_label("I have seen the cost").check()
        page.get_by_role("button", name="Deploy", exact=True).click()
        page.wait_for_url(f"**/endpoints/{DEMO}/")
        stack.wait_status(DEMO, "active")
        page.reload()
        page.get_by_role("link", name="Scale").click()
        page.locator("dialog#scale").get_by_label("Instances").fill("2")
        page.locator("dialog#scale").get_by_role("button", name="Scale").click()
        expect(page.locator("main")).to_contain_text("2 wanted")
        until(lambda: ready(stack) == 2, seconds=60, every=0.2, what="two ready instances")
        page.locator("#actions summary").click()
        page.locator("#actions").get_by_role("link", name="Delete").click()
        page.locator("dialog#delete").get_by_role("textbox").fill(DEMO)
        page.locator("dialog#delete").get_by_role("button", name="Delete").click()
        page.wait_for_url("**/projects/demo/endpoints/")
        stack.wait_status(DEMO, "deleted")


def ready(stack: Stack) -> int:
    return int(stack.api("GET", f"endpoints/{DEMO}").json()["instances"]["ready"])
