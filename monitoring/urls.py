"""Fragments and data of an endpoint's page; the page itself fetches them by these addresses."""

from django.urls import path

from monitoring import body_views, views

app_name = "monitoring"
_endpoint = "projects/<slug:project>/endpoints/<slug:name>"
urlpatterns = [
    path(f"{_endpoint}/kpis/", views.kpis, name="kpis"),
    path(f"{_endpoint}/charts/", views.board_of_charts, name="charts"),
    path(f"{_endpoint}/charts/<slug:chart>/", views.chart, name="chart"),
    path(f"{_endpoint}/charts/<slug:chart>.csv", views.chart_csv, name="chart-csv"),
    path(f"{_endpoint}/logs/", views.log_lines, name="logs"),
    path(f"{_endpoint}/logs/download/", views.log_download, name="log-download"),
    path(f"{_endpoint}/requests/", views.requests, name="requests"),
    path(f"{_endpoint}/requests/bodies/", body_views.settings, name="bodies"),
    path(f"{_endpoint}/requests/bodies/stop/", body_views.stop, name="stop-bodies"),
    path(f"{_endpoint}/requests/<uuid:record>/", views.request_record, name="request"),
]
