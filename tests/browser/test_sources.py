"""Deployments from a Git repository and from a bucket, in a real browser on the whole console."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.screens import shoot
from tests.browser.story import Person
from tests.certificates import context
from tests.front import Front
from tests.git_host import GitHost
from tests.model_files import smollm2
from tests.s3_host import ACCESS_KEY, SECRET_KEY, s3_bucket
from tests.stack.whole import Stack

pytestmark = pytest.mark.model
TOKEN = "glpat-the-token-of-this-test"


@pytest.fixture(scope="module")
def repository(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Git repository that wants a token, with the demo's model in LFS."""
    host = GitHost(tmp_path_factory.mktemp("git"))
    host.make("lab/chat")
    host.commit("lab/chat", {"README.md": b"hi", "models/smol.gguf": smollm2().read_bytes()})
    host.token = TOKEN
    with Front(door=host, tls=context(stack.certificate)) as front:
        host.url = front.url
        yield f"{front.url}/lab/chat.git"


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of an S3 service with the demo's model in the bucket “models”."""
    with s3_bucket({"smol/smol.gguf": smollm2().read_bytes()}) as client:
        yield client.meta.endpoint_url


@pytest.fixture
def person(page: Page, stack: Stack) -> Iterator[Person]:
    yield Person(page, stack)
    for name in ("from-git", "from-s3"):
        stack.delete(name)


def to_the_source(person: Person, name: str) -> None:
    """Begin an endpoint of this name, and go on to where its model comes from."""
    person.begin()
    person.page.get_by_label("Name", exact=True).fill(name)
    go_on(person.page, "method")
    go_on(person.page, "source")


def go_on(page: Page, to: str) -> None:
    page.get_by_role("button", name="Continue", exact=True).last.click()
    page.wait_for_url(f"**/{to}/")


def store(page: Page, button: str, name: str, value: str) -> None:
    """Store a secret on the way; the page comes back with it chosen."""
    page.get_by_role("button", name=button).click()
    dialog = page.locator("dialog#new-secret[open]")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Value").fill(value)
    dialog.get_by_role("button", name="Store").click()
    expect(page.locator("#toasts")).to_contain_text("is stored and chosen")


def deploy(person: Person, name: str, shot: str) -> None:
    """Test the connection, deploy with the rest as proposed, and see it answer."""
    page = person.page
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#look")).to_contain_text("Reached just now")
    expect(page.locator("#look")).to_contain_text("smol.gguf")
    shoot(page, shot)
    page.get_by_role("button", name="Keep the rest as proposed").click()
    page.wait_for_url("**/summary/")
    person.confirm()
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.wait_for_url(f"**/endpoints/{name}/")
    person.sees("Active")
    asked = {"model": name, "messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 4}
    assert person.stack.call(name, "chat/completions", asked).json()["usage"]["completion_tokens"] > 0


def test_from_a_git_repository_with_a_token_stored_on_the_way(person: Person, repository: str) -> None:
    page = person.page
    to_the_source(person, "from-git")
    page.get_by_label("Git repository").check()
    page.get_by_label("Repository", exact=True).fill(repository)
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator(".field-bad", has_text="Access token")).to_be_visible()
    shoot(page, "source-git-refused")
    store(page, "Store a new token or key", "git-token", TOKEN)
    expect(page.get_by_label("Repository", exact=True)).to_have_value(repository)
    deploy(person, "from-git", "source-git")
    assert TOKEN not in page.content() + person.stack.words()


def test_from_a_bucket(person: Person, service: str) -> None:
    page = person.page
    to_the_source(person, "from-s3")
    page.get_by_label("Amazon S3 or compatible").check()
    page.get_by_role("textbox", name="Bucket", exact=True).fill("models")
    page.locator("#id_s3-path").fill("smol")
    page.locator("#id_s3-url").fill(service)
    page.get_by_label("Access key ID").fill(ACCESS_KEY)
    store(page, "Store a new secret access key", "s3-key", SECRET_KEY)
    expect(page.get_by_role("textbox", name="Bucket", exact=True)).to_have_value("models")
    deploy(person, "from-s3", "source-s3")
    assert SECRET_KEY not in page.content() + person.stack.words()


def test_what_a_region_of_processes_cant_run_cant_be_chosen(person: Person) -> None:
    page = person.page
    person.begin()
    go_on(page, "method")
    for title, reason in (
        ("Custom Docker container", "Choose a region with Docker"),
        ("vLLM", "needs a container"),
    ):
        card = page.locator("label.choice", has_text=title)
        expect(card.locator("input")).to_have_attribute("aria-disabled", "true")
        expect(card).to_contain_text(reason)
        card.click(force=True)
        expect(card.locator("input")).not_to_be_checked()
    expect(page.get_by_label("llama.cpp")).to_be_checked()
    go_on(page, "source")
