"""The second step: a pre-built container and its framework, or an image of one's own."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from typing import Any, Final

from django import forms

from endpoints import offers
from endpoints.images.names import name_of
from endpoints.images.requirements import wrong
from endpoints.sources import SourceProblem
from endpoints.spec import VERSIONS, ContainerSpec, Framework, Method
from endpoints.wizard.fields import PLAIN, OneOf, whole
from endpoints.wizard.forms import StepForm
from endpoints.wizard.image_look import NO_NAME, ImageLook, lines_of, see

HEALTH_PATH: Final = re.compile(r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$")
LATEST: Final = (
    "“latest” moves: an instance that starts later may run another image than one that runs already. "
    "Name a version, or a digest."
)
NO_IMAGE: Final = "Give the image's name, such as registry.example.com/team/model:1.4."
CONTAINER: Final = tuple(one.name for one in fields(ContainerSpec))
NOT_PREBUILT: Final = "Only a custom container has this."
NOT_CUSTOM: Final = "A custom container brings its own framework."


class MethodForm(StepForm):
    """Only the chosen method's fields are looked at; the other's answers stay as they were typed."""

    method = OneOf("Deployment method", Method.choices, initial=Method.PREBUILT)
    framework = OneOf("Framework", Framework.choices, initial=Framework.LLAMA_CPP)
    framework_version = OneOf("Framework version", [], required=False)
    image = forms.CharField(
        label="Image",
        required=False,
        max_length=400,
        help_text="As for docker pull: registry/name:tag, better with its digest: @sha256:…",
        widget=forms.TextInput(attrs=PLAIN | {"placeholder": "registry.example.com/team/model:1.4"}),
    )
    port = whole("port", "Port", "", "Where the container answers.")
    health_path = forms.CharField(
        label="Health path",
        required=False,
        max_length=200,
        initial=ContainerSpec.health_path,
        help_text="Asked with GET on the port; 200 means that the model is ready.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    command = forms.CharField(
        label="Command",
        required=False,
        max_length=2000,
        help_text="Words as in a shell, handed to the image's entrypoint. Empty: the image's own. "
        "Never a password: it can be read by others.",
        widget=forms.TextInput(attrs=PLAIN | {"placeholder": "python serve.py --port 8000"}),
    )
    startup_seconds = whole(
        "startup_seconds", "Time to start", "seconds", "Until it must answer at its health path."
    )
    registry_username = forms.CharField(
        label="Registry user name",
        required=False,
        max_length=200,
        help_text="Only for images that not everybody may pull.",
        widget=forms.TextInput(attrs=PLAIN),
    )
    registry_secret = OneOf("Registry password", [], required=False, help_text="A stored secret.")

    def prepare(self) -> None:
        region = self.situation.region
        if region is not None:
            reasons = {engine: offers.reason_against(region, engine) for engine in Framework.values}
            self.one_of("method").refuse({Method.CUSTOM: why} if (why := reasons.pop(Framework.CUSTOM)) else {})
            self.one_of("framework").refuse({engine: why for engine, why in reasons.items() if why})
        versions = VERSIONS.get(str(self.shown("framework")), ())
        self.one_of("framework_version").choices = [("", "Newest"), *((one, one) for one in versions)]
        secrets = [(name, name) for name in self.situation.catalogue.secrets]
        self.one_of("registry_secret").choices = [("", "No password"), *secrets]

    def dotted(self, name: str) -> str:
        return f"container.{name}" if name in CONTAINER else name

    def unused(self) -> dict[str, str]:
        if self.cleaned_data.get("method") == Method.CUSTOM:
            return {"framework": NOT_CUSTOM, "framework_version": NOT_CUSTOM}
        return dict.fromkeys(CONTAINER, NOT_PREBUILT)

    def clean(self) -> dict[str, Any]:
        self.forget(*self.unused())
        if self.cleaned_data.get("method") == Method.CUSTOM:
            self.cleaned_data["framework"] = Framework.CUSTOM
            self._clean_container()
        elif framework := self.cleaned_data.get("framework"):
            if framework == Framework.CUSTOM:
                self.add_error("framework", "An image of your own takes the method “custom”.")
            newest = next(iter(VERSIONS.get(framework, ())), "")
            self.cleaned_data["framework_version"] = self.cleaned_data.get("framework_version") or newest
        return self.cleaned_data

    def _clean_container(self) -> None:
        image, path = self.cleaned_data.get("image") or "", self.cleaned_data.get("health_path") or ""
        if not image:
            self.add_error("image", NO_IMAGE)
        elif name_of(image) is None:
            self.add_error("image", NO_NAME.format(image))
        self.cleaned_data["health_path"] = path or ContainerSpec.health_path
        if path and not HEALTH_PATH.match(path):
            self.add_error(
                "health_path", f"“{path}” is no path. It begins with “/” and has no spaces, such as /health."
            )
        self._clean_command(self.cleaned_data.get("command") or "")
        user, secret = (self.cleaned_data.get(f"registry_{name}") or "" for name in ("username", "secret"))
        if user and not secret and "registry_secret" not in self.errors:
            self.add_error("registry_secret", "Choose the secret that holds this user's password or token.")
        if secret and not user:
            self.add_error("registry_username", "Give the user whose password this is.")

    def _clean_command(self, command: str) -> None:
        try:
            shlex.split(command)
        except ValueError:
            self.add_error("command", "A quotation mark is open. Close it, or write \\ in front of it.")

    @property
    def engine(self) -> str:
        """What would serve, of answers that may be wrong elsewhere; llama.cpp where that can't be told."""
        if str(self.shown("method")) == Method.CUSTOM:
            return Framework.CUSTOM
        chosen = str(self.shown("framework"))
        return chosen if chosen in Framework.values else Framework.LLAMA_CPP

    @property
    def moving(self) -> str:
        """A warning where the image's name doesn't say which image it is."""
        name = name_of(str(self.shown("image") or ""))
        return LATEST if self.engine == Framework.CUSTOM and name is not None and name.moving else ""

    def container(self) -> ContainerSpec:
        """Only of a form without errors."""
        if self.cleaned_data["method"] != Method.CUSTOM:
            return ContainerSpec()
        return ContainerSpec(**{name: self.cleaned_data[name] for name in CONTAINER})

    def known(self, look: ImageLook | None) -> ImageLook | None:
        """What an earlier check saw, if it was of this image."""
        return look if look is not None and self.is_valid() and look.of(self.container()) else None

    def check(self) -> ImageLook | None:
        """Ask the image's registry; None, with the error at its field, where it can't be had or can't run.
        Only of a form without errors."""
        container, region = self.container(), self.situation.region
        if not container.image:
            self.add_error("image", NO_IMAGE)
            return None
        try:
            look = see(container, self.situation.project, region)
        except SourceProblem as problem:
            self.add_error(problem.field if problem.field in self.fields else None, problem.message)
            return None
        if why := wrong(lines_of(look, container, region, model="")):
            self.add_error("image", f"{why}.")
            return None
        return look
