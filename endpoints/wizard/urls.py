"""Addresses of the wizard, beneath /projects/<project>/endpoints/new/."""

from django.urls import path

from endpoints.wizard import views

urlpatterns = [
    path("", views.new, name="new"),
    path("<uuid:draft>/", views.resume, name="resume"),
    path("<uuid:draft>/panel/", views.panel, name="panel"),
    path("<uuid:draft>/name/", views.name, name="draft_name"),
    path("<uuid:draft>/undo/", views.undo, name="undo"),
    path("<uuid:draft>/secret/", views.secret, name="draft_secret"),
    path("<uuid:draft>/discard/", views.discard, name="discard"),
    path("<uuid:draft>/<slug:step>/", views.step, name="step"),
]
