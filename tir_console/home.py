"""The root page leads to where one works."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from accounts.models import Project


def home(request: HttpRequest) -> HttpResponse:
    project = Project.objects.visible_to(request.user).first()
    return redirect("endpoints:list", project=project.slug) if project else redirect("accounts:new-project")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return render(request, "400.html", status=400)
