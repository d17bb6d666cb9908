"""The scaling policy as a form: of the wizard, and of the page of an endpoint that runs."""

from __future__ import annotations

from typing import Any

from django import forms

from accounts.refused import Refused
from endpoints.models.scaled import POLICY, refuse_policy
from endpoints.wizard.fields import whole


class PolicyForm(forms.Form):
    min_instances = whole(
        "min_instances", "Min instances", "instances", "0 lets it sleep while nobody calls; a request wakes it."
    )
    max_instances = whole("max_instances", "Max instances", "instances")
    target_concurrency = whole(
        "target_concurrency", "Target concurrency", "requests", "Requests in flight per instance before scaling."
    )
    scale_up_threshold = whole(
        "scale_up_threshold", "Scale-up threshold", "%", "CPU or memory use that asks for one more."
    )
    scale_down_delay = whole("scale_down_delay", "Scale-down delay", "s", "Wait before one goes.")
    warm_spare = whole(
        "warm_spare", "Warm spare", "instances", "Kept ready above what the load needs, and paid like any other."
    )

    def clean(self) -> dict[str, Any]:
        """Each in its range, which its field has judged, and all together."""
        found = {name: self.cleaned_data[name] for name in POLICY if name in self.cleaned_data}
        if found.keys() >= {"min_instances", "max_instances", "warm_spare"}:
            try:
                refuse_policy(found, given=found)
            except Refused as refused:
                self.add_error(refused.field, str(refused))
        return self.cleaned_data
