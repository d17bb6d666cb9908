"""The page where an endpoint's operators choose whether bodies are kept."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.models import User
from endpoints.acts import LOOK_ONLY
from endpoints.models import Endpoint
from monitoring import bodies
from monitoring.body_forms import BodiesForm
from monitoring.models import BodySampling


def _operated(request: HttpRequest, project: str, name: str) -> Endpoint:
    visible = Endpoint.objects.visible_to(request.user).select_related("project")
    endpoint = get_object_or_404(visible, project__slug=project, name=name)
    if not bodies.may_read(request.user, endpoint):
        raise PermissionDenied(LOOK_ONLY)
    return endpoint


@require_http_methods(["GET", "HEAD", "POST"])
def settings(request: HttpRequest, project: str, name: str) -> HttpResponse:
    endpoint = _operated(request, project, name)
    sampling = BodySampling.objects.filter(endpoint=endpoint).first()
    initial = {"one_in": sampling.one_in, "patterns": "\n".join(sampling.patterns)} if sampling else None
    form = BodiesForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid() and isinstance(request.user, User):
        bodies.keep(endpoint, **form.cleaned_data, by=request.user)
        messages.success(
            request, f"Keeps the bodies of one request in {form.cleaned_data['one_in']:,} from now on."
        )
        return redirect("monitoring:bodies", project=project, name=name)
    context = {"endpoint": endpoint, "here": endpoint.project, "form": form, "sampling": sampling}
    status = 422 if form.errors else 200
    return render(request, "monitoring/bodies.html", context, status=status)


@require_POST
def stop(request: HttpRequest, project: str, name: str) -> HttpResponse:
    endpoint = _operated(request, project, name)
    if isinstance(request.user, User):
        bodies.stop(endpoint, by=request.user)
    messages.success(request, "No bodies are kept any more, and those that were are gone.")
    return redirect("monitoring:bodies", project=project, name=name)
