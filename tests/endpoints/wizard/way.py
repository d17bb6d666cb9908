"""Walking through the wizard as a browser without JavaScript does."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import Model
from django.test import Client
from django.urls import reverse

from endpoints.models import Draft, InstanceType, ModelVersion, Region, Secret
from endpoints.wizard.steps import STEPS

LEFT = ("answers", "dropped", "found", "reached")  # what a walk leaves of itself
# Of rows; differs from test to test and says nothing.
PASSING = {"id", "model_id", "project_id", "created_by_id", "created_at", "updated_at", "capacity_at"}
_walks: dict[str, dict[str, Any]] = {}  # a scene and where it was left for → what was left then


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
        """Go there with everything as proposed: through the pages once for each scene, later as that left it."""
        walk = json.dumps([step, basics, self._scene()], default=str, sort_keys=True)
        if walk not in _walks:
            for one in STEPS[: [each.slug for each in STEPS].index(step)]:
                self.passes(one.slug, **(basics if one.slug == "basics" else {}))
            draft = self.fresh()
            _walks[walk] = {name: getattr(draft, name) for name in LEFT}
        Draft.objects.filter(pk=self.draft.pk).update(**_walks[walk])

    def _scene(self) -> list[Any]:
        """All that is proposed from."""
        kinds: tuple[type[Model], ...] = (Region, InstanceType, ModelVersion, Secret)
        rows = [list(kind._default_manager.order_by("pk").values()) for kind in kinds]
        known = [[{name: row[name] for name in row.keys() - PASSING} for row in each] for each in rows]
        draft = self.fresh()
        return [*known, [getattr(draft, name) for name in LEFT]]

    def fresh(self) -> Draft:
        return Draft.objects.get(pk=self.draft.pk)
