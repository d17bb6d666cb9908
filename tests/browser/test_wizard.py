"""The wizard in a real browser: the live panel, the greyed-out machines, and a deployment."""

import os

import pytest
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from accounts.models import Project
from endpoints.models import Region
from endpoints.wizard.steps import FORM_STEPS
from tests import make
from tests.browser.screens import shoot
from tir_console.up import catalogue

# Playwright's loop runs in this thread, and Django would take it for its own.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def entered(page: Page, live_server: LiveServer) -> Page:
    """Logged in as the demo's owner, on the first step of a new draft."""
    catalogue.load()
    owner = catalogue.load_demo()
    capacity = {"cpu_millis": 8000, "memory_bytes": 64 << 30, "gpus": 0, "reason": "no NVIDIA driver found"}
    Region.objects.update(capacity=capacity)
    make.endpoint(Project.objects.get(), name="chat", ready=1)
    page.goto(live_server.url + catalogue.login_link(owner))
    button = page.locator("main button")
    if button.count():
        button.first.click()
    page.goto(f"{live_server.url}/projects/demo/endpoints/new/")
    return page


def test_the_way_through_with_everything_as_proposed(entered: Page) -> None:
    page = entered
    for step in FORM_STEPS:
        page.wait_for_url(f"**/{step}/")
        shoot(page, f"wizard-{step}")
        page.get_by_role("button", name="Continue", exact=True).last.click()
    page.wait_for_url("**/summary/")
    shoot(page, "wizard-summary")
    page.get_by_label("I have seen the cost").check()
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.wait_for_url("**/endpoints/smollm2-135m-instruct/")


def on_machine(page: Page) -> Page:
    page.get_by_role("button", name="Keep the rest as proposed").click()
    page.wait_for_url("**/summary/")
    page.locator(".stepper a", has_text="Machine").click()
    page.wait_for_url("**/machine/")
    return page


def test_the_panel_follows_the_fields_and_a_refused_machine_cant_be_chosen(entered: Page) -> None:
    page = on_machine(entered)
    page.locator("label", has_text="c6i.xlarge").click()
    expect(page.locator("#panel")).to_contain_text("₹6.40")
    page.locator("label", has_text="p4d.xlarge").click(force=True)
    expect(page.locator("#panel")).to_contain_text("₹6.40")
    page.reload()
    expect(page.get_by_label("c6i.xlarge")).to_be_checked()


def test_a_console_that_cant_be_reached_is_said_until_it_answers_again(entered: Page) -> None:
    page = on_machine(entered)
    page.route("**/panel/**", lambda route: route.abort("connectionrefused"))
    page.locator("label", has_text="c6i.xlarge").click()
    said = page.get_by_text("The console can't be reached")
    expect(said).to_be_visible()
    page.unroute("**/panel/**")
    page.locator("label", has_text="c6i.large").click()
    expect(said).to_have_count(0)


def test_errors_take_the_focus_to_the_first_field(entered: Page) -> None:
    page = entered
    page.locator("#id_name").fill("Not A Name")
    expect(page.locator("main")).to_contain_text("begin with a letter")
    page.keyboard.press("Enter")
    expect(page.locator("#id_name")).to_be_focused()
    shoot(page, "wizard-error")


def test_rows_come_and_go_without_leaving_the_page(entered: Page) -> None:
    page = entered
    page.get_by_role("button", name="Keep the rest as proposed").click()
    page.locator(".stepper a", has_text="Environment").click()
    page.locator("#variable-0").fill("MODE")
    page.locator("#value-0").fill("fast")
    page.get_by_role("button", name="Add a variable").click()
    page.locator("#variable-1").fill("KEY")
    page.locator("#value-1").fill("hf_abcdefghijklmnop")
    page.get_by_role("button", name="Continue", exact=True).last.click()
    expect(page.locator("main")).to_contain_text("Store it as a secret")
    page.get_by_role("button", name="Remove KEY").click()
    expect(page.get_by_role("button", name="Remove KEY")).to_have_count(0)
