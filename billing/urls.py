"""Costs, fetched by the pages that show them."""

from django.urls import path

from billing import views

app_name = "billing"
urlpatterns = [
    path("projects/<slug:project>/endpoints/<slug:name>/cost/", views.cost, name="cost"),
    path("projects/<slug:project>/cost/", views.project_cost, name="project_cost"),
]
