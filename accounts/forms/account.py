"""Forms of a person's own account."""

from __future__ import annotations

import zoneinfo
from typing import Any

from django import forms
from django.contrib.auth.forms import PasswordChangeForm

from accounts.models import User


def zones() -> list[tuple[str, str]]:
    names = sorted(name for name in zoneinfo.available_timezones() if "/" in name and not name.startswith("Etc/"))
    return [("", "As the browser says"), ("UTC", "UTC"), *((name, name.replace("_", " ")) for name in names)]


class ProfileForm(forms.ModelForm[User]):
    class Meta:
        model = User
        fields = ["name", "timezone"]
        labels = {"timezone": "Time zone"}
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "name"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["timezone"].widget = forms.Select(choices=zones())
        self.fields["timezone"].help_text = "Times, charts and days of bills are shown in it."
        self.fields["name"].required = True


class PasswordForm(PasswordChangeForm):
    """Stands second on its page, so it doesn't take the focus."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["new_password1"].help_text = "At least 8 characters, not common, not like your name or email."
        self.fields["old_password"].widget.attrs.pop("autofocus", None)
