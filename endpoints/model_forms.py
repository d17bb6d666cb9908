"""Forms of the registry."""

from __future__ import annotations

from typing import Any

from django import forms

from accounts.models import Project
from endpoints.models import ModelVersion, RegisteredModel

MOST_PARENTS = 200
LONG = {"rows": 4}


class AboutForm(forms.ModelForm[RegisteredModel]):
    """What is said of a model, which may change."""

    description = forms.CharField(required=False, max_length=20_000, widget=forms.Textarea(attrs=LONG))

    class Meta:
        model = RegisteredModel
        fields = ["title", "license", "description"]
        help_texts = {"license": "Such as Apache-2.0."}


class NewModelForm(AboutForm):
    class Meta(AboutForm.Meta):
        fields = ["name", "title", "license", "description"]
        help_texts = {
            **AboutForm.Meta.help_texts,
            "name": "Letters, digits, hyphens and underscores. Endpoints name it by this; it can't be changed.",
        }

        error_messages = {"name": {"invalid": "Use letters, digits, hyphens and underscores, without spaces."}}

    def validate_unique(self) -> None:
        """The verb that makes it asks the database itself."""


class DraftForm(forms.Form):
    """Where a version comes from."""

    parent = forms.ChoiceField(
        label="Made from",
        required=False,
        help_text="A version it was fine-tuned, quantized or converted from.",
    )
    origin = forms.CharField(
        label="Or from elsewhere",
        required=False,
        max_length=500,
        help_text="A repository at a commit, or a training run: org/name at 1a2b3c4.",
    )
    notes = forms.CharField(
        label="What is new in it", required=False, max_length=20_000, widget=forms.Textarea(attrs={"rows": 2})
    )

    def __init__(self, *args: Any, project: Project, model: RegisteredModel, **more: Any) -> None:
        super().__init__(*args, **more)
        usable = RegisteredModel.objects.usable_in(project)
        versions = ModelVersion.objects.filter(model__in=usable).select_related("model")
        self.versions = {
            str(one.pk): one
            for one in sorted(
                versions.order_by("-created_at")[:MOST_PARENTS],
                key=lambda one: (one.model_id != model.pk, one.model.name, -one.number),
            )
        }
        choices = [("", "Nothing in the registry"), *((pk, str(one)) for pk, one in self.versions.items())]
        self.fields["parent"].choices = choices  # type: ignore[attr-defined]

    @property
    def made_from(self) -> ModelVersion | None:
        return self.versions.get(self.cleaned_data["parent"])


class FileForm(forms.Form):
    """One file without scripts: it comes in one piece."""

    file = forms.FileField(label="File", allow_empty_file=True)
    path = forms.CharField(
        label="Path in the version",
        required=False,
        max_length=400,
        help_text="Such as weights/model.safetensors; without one, the file's own name.",
    )
