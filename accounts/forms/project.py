"""Forms of projects and their members."""

from __future__ import annotations

from django import forms

from accounts.models import Project
from accounts.roles import Role


class ProjectForm(forms.ModelForm[Project]):
    class Meta:
        model = Project
        fields = ["name"]
        labels = {"name": "Project name"}


class RoleForm(forms.Form):
    role = forms.ChoiceField(label="Role", choices=Role.choices, initial=Role.DEVELOPER)


class InviteForm(RoleForm):
    email = forms.EmailField(label="Email", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    field_order = ["email", "role"]
