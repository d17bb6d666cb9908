"""The whole console as a person starts it: one `manage.py up` for all the tests that ask for `stack`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from playwright.sync_api import Page

from tests.certificates import certificate
from tests.hub import Hub, Repo
from tests.model_files import gguf
from tests.up.house import House
from tests.wait import until

DEMO_MODEL = {"kind": "registry", "model": "smollm2-135m-instruct", "version": 1}
# A repository whose file is no model, and one whose model no machine of the catalogue could hold.
REPOS = {
    "tests/not-a-model": Repo({"model.gguf": b"<html>This is a page, not a model.</html>" * 9}),
    "tests/giant": Repo({"giant.gguf": gguf({"llama.block_count": 4000, "llama.embedding_length": 65536})}),
}
CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
SESSION = "sessionid"
KEPT_LINES = 60


@dataclass
class Settled(House):
    """A house with variables of its own."""

    variables: Mapping[str, str] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        return super().environ() | dict(self.variables)


@dataclass
class Stack:
    """A console that runs. `hub` is the Hugging Face Hub it knows, `certificate` that of servers it trusts."""

    house: House
    hub: Hub
    certificate: Path = Path()
    _session: str = ""
    _keys: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def console_url(self) -> str:
        return f"http://127.0.0.1:{self.house.console}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.house.gateway}"

    # ── people ──────────────────────────────────────────────────────────────────────────────────
    @property
    def login_link(self) -> str:
        """The link that `up` printed; it works once."""
        line = next(line for line in self.house.said.splitlines() if line.startswith("Log in"))
        return line.split()[2]

    def login(self, page: Page) -> None:
        """Make this page's browser the demo owner's: by the printed link the first time, later by its session."""
        if not self._session:
            page.goto(self.login_link)
            page.get_by_role("button", name="Continue").click()
            page.wait_for_url("**/projects/demo/endpoints/")
            cookies = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
            self._session = cookies[SESSION]
            return
        page.context.add_cookies([{"name": SESSION, "value": self._session, "url": self.console_url}])
        page.goto(f"{self.console_url}/")

    @contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """A client that is logged in as the demo's owner and sends forms as a browser without scripts does."""
        given: Any = {"trust_env": False, "timeout": 180, "follow_redirects": True}
        with httpx.Client(base_url=self.console_url, **given) as client:
            if self._session:
                client.cookies.set(SESSION, self._session, domain="127.0.0.1")
            else:
                path = urlsplit(self.login_link).path
                assert self.submit(client, path, client.get(path).text).status_code == 200
                self._session = client.cookies[SESSION]
            yield client

    def submit(self, client: httpx.Client, path: str, page: str, **fields: Any) -> httpx.Response:
        """Post a form of `page`, whose token it carries."""
        found = CSRF.search(page)
        assert found, page
        headers = {"Referer": self.console_url}
        return client.post(path, data={"csrfmiddlewaretoken": found[1], **fields}, headers=headers)

    # ── programs ────────────────────────────────────────────────────────────────────────────────
    def key(self, *scopes: str, project: str = "demo") -> str:
        """An API key, made as the README says; the same one for the same wish."""
        wish = (project, *sorted(scopes or ("inference", "manage")))
        if wish not in self._keys:
            flags = [flag for scope in wish[1:] for flag in ("--scope", scope)]
            made = self.house.run("manage.py", "create_api_key", "--project", project, *flags)
            assert made.returncode == 0, made.stderr
            self._keys[wish] = made.stdout.strip()
        return self._keys[wish]

    def api(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """The REST API, under /api/v1/."""
        bearer = {"Authorization": f"Bearer {key or self.key()}"} | headers
        return httpx.request(
            method,
            f"{self.console_url}/api/v1/{path}",
            json=body,
            headers=bearer,
            trust_env=False,
            timeout=180,
        )

    def call(self, endpoint: str, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        """The gateway, as a program calls it."""
        headers = {"Authorization": f"Bearer {key or self.key()}"}
        url = f"{self.gateway_url}/e/{endpoint}/v1/{path}"
        method = "GET" if body is None else "POST"
        return httpx.request(method, url, json=body, headers=headers, trust_env=False, timeout=180)

    # ── endpoints ───────────────────────────────────────────────────────────────────────────────
    def wish(self, name: str, **changes: Any) -> dict[str, Any]:
        """The specification of an endpoint of the demo model."""
        return {"name": name, "region": "local", "instance_type": "c6i.large", "source": DEMO_MODEL} | changes

    def names(self) -> set[str]:
        return {item["name"] for item in self.api("GET", "endpoints").json()["items"]}

    def status(self, name: str) -> str:
        answer = self.api("GET", f"endpoints/{name}")
        return str(answer.json()["status"]) if answer.status_code == 200 else "deleted"

    def wait_status(self, name: str, wanted: str, seconds: float = 180.0) -> None:
        until(lambda: self.status(name) == wanted, seconds=seconds, every=0.1, what=f"{name} to be {wanted}")

    def deploy(self, name: str, **changes: Any) -> None:
        """Have it active."""
        answer = self.api("POST", "endpoints", self.wish(name, **changes))
        assert answer.status_code == 201, answer.text
        self.wait_status(name, "active")

    def delete(self, name: str) -> None:
        """Have it gone, if it is there."""
        answer = self.api("DELETE", f"endpoints/{name}")
        assert answer.status_code in (202, 404), answer.text
        self.wait_status(name, "deleted")

    # ── processes ───────────────────────────────────────────────────────────────────────────────
    @contextmanager
    def held(self, pid: int, *, family: bool = False) -> Iterator[None]:
        """The process stands still meanwhile; `family`: those below it too."""
        one = psutil.Process(pid)
        members = [one, *one.children(recursive=True)] if family else [one]
        for one in members:
            one.suspend()
        try:
            yield
        finally:
            for one in members:
                with suppress(psutil.NoSuchProcess):  # killed meanwhile
                    one.resume()

    # ── when something went wrong ───────────────────────────────────────────────────────────────
    def words(self) -> str:
        """What each process said last, for somebody who reads a failed test."""
        files = [self.house.said_file, *sorted((self.house.data / "logs").glob("*.log"))]
        return "\n".join(f"── {file.name}\n{_tail(file)}" for file in files if file.is_file())


def _tail(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-KEPT_LINES:])


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    # Not in pytest's own folder: another pytest that starts meanwhile closes that to PostgreSQL's account.
    with Hub(REPOS) as hub, TemporaryDirectory(prefix="tir-stack-") as folder:
        trusted = certificate(Path(folder))
        variables = {"CPU_OVERCOMMIT": "8", "HF_ENDPOINT": hub.url, "SSL_CERT_FILE": str(trusted)}
        house = Settled(Path(folder) / "data", variables=variables)
        house.start("manage.py", "up", "--no-input")
        try:
            house.wait_ready()
            yield Stack(house, hub, trusted)
        finally:
            house.run("manage.py", "up", "--stop-all", "--no-input")
            house.clean()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test of the stack says what the processes said."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    found = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(found, Stack):
        report.sections.append(("What the processes said", found.words()))
    return report  # type: ignore[return-value]
