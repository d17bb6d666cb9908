"""Pages of projects: new, name, members, invitations."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from accounts import access
from accounts.forms.project import InviteForm, ProjectForm, RoleForm
from accounts.models import Invitation, Membership, Project
from accounts.people import person
from accounts.refused import Refused
from accounts.roles import WHAT_ROLES_DO, Right, Role


def new(request: HttpRequest) -> HttpResponse:
    form = ProjectForm(request.POST or None)
    if not form.is_valid():
        page = {"form": form}
        return render(request, "accounts/project_new.html", page, status=422 if form.is_bound else 200)
    project = Project.start(form.cleaned_data["name"], owner=person(request))
    messages.success(request, f"{project} is ready.")
    return redirect("endpoints:list", project=project.slug)


def members(request: HttpRequest, project: str) -> HttpResponse:
    return _members(request, access.membership(request.user, project, Right.VIEW))


@require_POST
def rename(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.ADMINISTER)
    form = ProjectForm(request.POST, instance=here.project)
    if not form.is_valid():
        here.project.refresh_from_db()
        return _members(request, here, rename=form)
    if here.project.rename(form.cleaned_data["name"], by=person(request)):
        messages.success(request, f"The project is called {here.project} now.")
    return redirect("accounts:members", project=project)


@require_POST
def invite(request: HttpRequest, project: str) -> HttpResponse:
    here = access.membership(request.user, project, Right.ADMINISTER)
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _members(request, here, invite=form)
    try:
        made = Invitation.send(
            here.project, form.cleaned_data["email"], form.cleaned_data["role"], by=person(request)
        )
    except Refused as refused:
        form.add_error(refused.field or None, str(refused))
        return _members(request, here, invite=form)
    messages.success(request, f"{made.email} is invited. Send them the link that stands below.")
    return redirect("accounts:members", project=project)


@require_POST
def change_role(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    here = access.membership(request.user, project, Right.ADMINISTER)
    member = get_object_or_404(here.project.memberships.select_related("user", "project"), pk=pk)
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Choose one of the five roles.")
        return redirect("accounts:members", project=project)
    try:
        if member.change_role(form.cleaned_data["role"], by=person(request)):
            messages.success(request, f"{member.user} is {member.get_role_display().lower()} now.")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("accounts:members", project=project)


@require_POST
def remove(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    """Remove a member, or leave: everybody may end their own membership."""
    here = access.membership(request.user, project, Right.VIEW)
    member = get_object_or_404(here.project.memberships.select_related("user", "project"), pk=pk)
    leaving = member.user_id == here.user_id
    if not leaving:
        access.membership(request.user, project, Right.ADMINISTER)
    try:
        member.remove(by=person(request))
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("accounts:members", project=project)
    said = f"You left {here.project}." if leaving else f"{member.user} was removed."
    messages.success(request, said)
    return redirect("home") if leaving else redirect("accounts:members", project=project)


@require_POST
def withdraw(request: HttpRequest, project: str, pk: int) -> HttpResponse:
    here = access.membership(request.user, project, Right.ADMINISTER)
    invitation = get_object_or_404(here.project.invitations.select_related("project"), pk=pk)
    try:
        invitation.withdraw(by=person(request))
        messages.success(request, f"The invitation of {invitation.email} no longer works.")
    except Refused as refused:
        messages.error(request, str(refused))
    return redirect("accounts:members", project=project)


def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows what is offered, POST takes it."""
    found = Invitation.objects.by_token(token, timezone.now())
    if found is None:
        return render(request, "accounts/link_dead.html", {"what": "invitation"}, status=410)
    problem = "" if found.email == person(request).email else f"This invitation is for {found.email}."
    if request.method != "POST" or problem:
        page = {"invitation": found, "problem": problem, "does": WHAT_ROLES_DO[Role(found.role)]}
        return render(request, "accounts/invitation.html", page, status=403 if problem else 200)
    try:
        membership = found.accept(by=person(request))
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("home")
    messages.success(request, f"You joined {membership.project}.")
    return redirect("endpoints:list", project=membership.project.slug)


def _members(
    request: HttpRequest, here: Membership, *, invite: InviteForm | None = None, rename: ProjectForm | None = None
) -> HttpResponse:
    invitations = here.project.invitations.open(timezone.now())
    links = [
        (found, settings.CONSOLE_URL + reverse("accounts:invitation", args=[found.token])) for found in invitations
    ]
    return render(
        request,
        "accounts/members.html",
        {
            "here": here,
            "may_administer": access.may(here, Right.ADMINISTER),
            "members": here.project.memberships.select_related("user").order_by("created_at"),
            "invitations": links,
            "roles": _roles_for(here),
            "what_roles_do": [(role.label, does) for role, does in WHAT_ROLES_DO.items()],
            "invite": invite or InviteForm(),
            "rename": rename or ProjectForm(instance=here.project),
            "audit": here.project.audit.exclude(what__regex=r"^(key|service|webhook_secret)\.")[:20],
        },
        status=422 if invite or rename else 200,
    )


def _roles_for(here: Membership) -> list[tuple[str, str]]:
    """Those that this member may give."""
    return [(role.value, role.label) for role in Role if role != Role.OWNER or here.role == Role.OWNER]
