"""Walking through the wizard as a browser without JavaScript does."""

from __future__ import annotations

from typing import Any

from django.test import Client
from django.urls import reverse

from endpoints.models import Draft
from endpoints.wizard.steps import STEPS


class Way:
    def __init__(self, client: Client, draft: Draft) -> None:
        self.client, self.draft = client, draft

    def url(self, step: str) -> str:
        return reverse("endpoints:step", args=[self.draft.project.slug, self.draft.pk, step])

    def act(self, name: str) -> str:
        return reverse(f"endpoints:{name}", args=[self.draft.project.slug, self.draft.pk])

    def see(self, step: str) -> str:
        answer = self.client.get(self.url(step))
        assert answer.status_code == 200, (step, answer.status_code, answer.headers.get("Location"))
        return answer.content.decode()

    def post(self, step: str, go: str = "next", **values: Any) -> Any:
        """Post a step's page with these fields; the answer, not followed."""
        return self.client.post(self.url(step), {"step": step, "go": go, **values})

    def passes(self, step: str, go: str = "next", **values: Any) -> str:
        """Post a step that must be accepted; where it leads."""
        answer = self.post(step, go, **values)
        assert answer.status_code == 302, answer.content.decode()
        return str(answer.headers["Location"])

    def refused(self, step: str, **values: Any) -> str:
        """Post a step that must not be accepted; its page."""
        answer = self.post(step, **values)
        assert answer.status_code == 422, (answer.status_code, answer.headers.get("Location"))
        return str(answer.content.decode())

    def to(self, step: str, **basics: Any) -> None:
        """Go there with everything as proposed."""
        for one in STEPS:
            if one.slug == step:
                return
            self.passes(one.slug, **(basics if one.slug == "basics" else {}))

    def fresh(self) -> Draft:
        return Draft.objects.get(pk=self.draft.pk)
