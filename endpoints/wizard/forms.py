"""The forms of the steps. Bound to plain answers (field → value), so that a page's post, a stored draft and
a JSON body are judged by the same code and answered with the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from django import forms
from django.forms.utils import ErrorDict

from endpoints.models import Endpoint
from endpoints.policy_form import PolicyForm
from endpoints.spec import (
    LIMITS,
    BillingModel,
    ScalingSpec,
)
from endpoints.wizard import machines
from endpoints.wizard.fields import OneOf
from endpoints.wizard.situation import Situation

RESERVED_NAMES = {"new"}  # the address of the wizard itself


class StepForm(forms.Form):
    """One step's answers, judged with what the other steps answered."""

    section = ""  # of the Spec, in front of its fields' names in JSON

    def __init__(self, data: Mapping[str, Any] | None = None, *, situation: Situation, **options: Any) -> None:
        super().__init__(data, **options)
        self.situation = situation
        self.row_errors: dict[str, dict[int, list[str]]] = {}
        self.prepare()

    def prepare(self) -> None:
        """Fill in choices and reasons that hang on the situation."""

    def dotted(self, name: str) -> str:
        """The field's name in JSON."""
        return f"{self.section}.{name}".strip(".")

    def unused(self) -> dict[str, str]:
        """Fields that say nothing with what was chosen, and why; asked once the form is judged."""
        return {}

    def forget(self, *names: str) -> None:
        """Judge these fields as if nobody had answered them; what was typed stays in the draft."""
        for name in names:
            self.errors.pop(name, None)
            self.cleaned_data[name] = self.fields[name].initial if self.fields[name].initial is not None else ""

    def one_of(self, name: str) -> OneOf:
        """This field, which is a OneOf."""
        return cast(OneOf, self.fields[name])

    def quiet(self) -> None:
        """Forget what is wrong: for a page that nobody has answered yet."""
        self._errors = ErrorDict()
        self.row_errors = {}

    def shown(self, name: str) -> Any:
        """What a field holds now, as typed, or its initial value."""
        return self[name].value()


class BasicsForm(StepForm):
    name = forms.CharField(
        label="Name",
        help_text=(
            "Small letters, digits and hyphens; begins with a letter, at most 40 characters. "
            "It must be free on the whole platform, because it is part of the address."
        ),
        error_messages={"required": "The endpoint needs a name, such as my-model."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"}),
    )
    region = OneOf("Region", [])

    def prepare(self) -> None:
        choices = [(slug, region.name) for slug, region in self.situation.catalogue.regions.items()]
        self.one_of("region").choices = choices
        if choices:
            self.fields["region"].initial = choices[0][0]

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if problem := name_problem(name):
            raise forms.ValidationError(problem)
        return name


def name_problem(name: str) -> str:
    """Why an endpoint can't have this name; empty if it can."""
    field = Endpoint._meta.get_field("name")
    if len(name) > (field.max_length or 0):
        return f"The name has {len(name)} characters; at most {field.max_length} are possible."
    try:
        field.run_validators(name)
    except forms.ValidationError as problem:
        return str(problem.messages[0])
    if name in RESERVED_NAMES:
        return f"“{name}” is an address of the console itself. Choose another name."
    if Endpoint.objects.living().filter(name=name).exists():
        return f"The name “{name}” is taken. Choose another."
    return ""


class MachineForm(StepForm):
    instance_type = OneOf("Instance type", [])
    memory_gib = forms.FloatField(
        label="Memory need, if you know better",
        required=False,
        min_value=LIMITS["memory_gib"][0],
        max_value=LIMITS["memory_gib"][1],
        help_text="In place of the estimate: what one instance needs. Empty or 0: the estimate decides.",
        widget=forms.NumberInput(attrs={"step": "0.1", "inputmode": "decimal", "autocomplete": "off"}),
    )

    def clean_memory_gib(self) -> float:
        return float(self.cleaned_data["memory_gib"] or 0)

    def prepare(self) -> None:
        types = self.situation.catalogue.types
        field = self.one_of("instance_type")
        field.choices = [(slug, slug) for slug in types]
        reasons = {slug: machines.reason_against(kind, self.situation) for slug, kind in types.items()}
        field.refuse({slug: reason for slug, reason in reasons.items() if reason})


def own_figure(answers: Mapping[str, Any]) -> float:
    """The memory need that was typed, in GiB; 0 for none, or one that the form will refuse."""
    try:
        return float(MachineForm.base_fields["memory_gib"].clean(answers.get("memory_gib")) or 0)
    except forms.ValidationError:
        return 0.0


class ScalingForm(PolicyForm, StepForm):
    """`requests_per_month` and `active_hours` serve the estimate on the page; no revision keeps them."""

    section = "scaling"
    billing_model = OneOf("Billing model", BillingModel.choices, initial=BillingModel.HOURLY)
    requests_per_month = forms.IntegerField(
        label="Requests per month", required=False, min_value=0, max_value=10**12, initial=100_000
    )
    active_hours = forms.IntegerField(
        label="Active hours per month",
        required=False,
        min_value=0,
        max_value=744,
        initial=730,
        help_text="730 is a whole month.",
        error_messages={"max_value": "A month has at most 744 hours."},
    )

    def spec(self) -> ScalingSpec:
        return ScalingSpec(**{one.name: self.cleaned_data[one.name] for one in fields(ScalingSpec)})
