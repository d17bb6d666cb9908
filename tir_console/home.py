"""The root page leads to where one works."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from accounts.models import Project
from tir_console.frame import LAST


def home(request: HttpRequest) -> HttpResponse:
    mine = Project.objects.visible_to(request.user)
    project = mine.filter(slug=request.session.get(LAST)).first() or mine.first()
    return redirect("endpoints:list", project=project.slug) if project else redirect("accounts:new_project")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, "400.html", status=400)
