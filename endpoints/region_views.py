"""Pages of regions, for staff: where instances run, how these places are reached, and what they said last."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from accounts.people import person
from accounts.refused import Refused
from endpoints import bell, region_audit
from endpoints.models import Region
from endpoints.region_form import RegionForm

View = Callable[..., HttpResponse]


def staff(view: View) -> View:
    """Only for people who run the platform."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not person(request).is_staff:
            raise PermissionDenied("Only the platform's staff may see and change regions.")
        return view(request, *args, **kwargs)

    return guarded


@staff
def regions(request: HttpRequest) -> HttpResponse:
    return render(
        request, "endpoints/regions.html", {"regions": Region.objects.counted(), "audit": region_audit.entries()}
    )


@staff
def new(request: HttpRequest) -> HttpResponse:
    return _form(request, None)


@staff
def region(request: HttpRequest, slug: str) -> HttpResponse:
    return _form(request, get_object_or_404(Region.objects.counted(), slug=slug))


def _form(request: HttpRequest, of: Region | None) -> HttpResponse:
    """Show it; keep what was posted, once it is right, and ask the place at once."""
    form = RegionForm(request.POST or None, instance=of)
    if request.POST.get("go") == "add-host" or not form.is_valid():
        status = 422 if form.is_bound and form.errors and "go" not in request.POST else 200
        return _page(request, form, of, status=status)
    saved = form.keep(by=person(request))
    _ask(saved)
    messages.success(request, f"{saved.name} is saved, and is being asked what it has.")
    return redirect("endpoints:region", slug=saved.slug)


def _page(request: HttpRequest, form: RegionForm, of: Region | None, *, status: int, **more: Any) -> HttpResponse:
    context = {"form": form, "here": of, "audit": region_audit.entries(of) if of else []}
    return render(request, "endpoints/region.html", context | more, status=status)


@staff
def state(request: HttpRequest, slug: str) -> HttpResponse:
    """What the place said last: a fragment that asks again while an answer is awaited."""
    here = get_object_or_404(Region, slug=slug)
    return render(request, "endpoints/region_state.html", {"here": here})


@staff
@require_POST
def test(request: HttpRequest, slug: str) -> HttpResponse:
    """Have a worker ask the place now; it alone is sure to reach it."""
    here = get_object_or_404(Region, slug=slug)
    if not _ask(here):
        messages.error(request, "No worker can be told to ask: the queue is away. Try again.")
    return redirect("endpoints:region", slug=slug)


@staff
@require_POST
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    here = get_object_or_404(Region.objects.counted(), slug=slug)
    if request.POST.get("confirm") != here.slug:
        context = {"untyped": f"It wasn't deleted: type exactly {here.slug}."}
        return _page(request, RegionForm(instance=here), here, status=422, **context)
    try:
        here.discard(by=person(request))
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect(reverse("endpoints:region", args=[slug]) + "#state-title")  # not at the dialog again
    messages.success(request, f"{here.name} is deleted.")
    return redirect("endpoints:regions")


def _ask(here: Region) -> bool:
    Region.objects.filter(pk=here.pk).update(asked_at=timezone.now())
    return bell.send("endpoints.measure_region", here.pk)
