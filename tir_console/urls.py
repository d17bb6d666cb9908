"""Every page and route of the console."""

from django.contrib import admin
from django.urls import include, path

from tir_console import api
from tir_console.home import home
from tir_console.search import search

urlpatterns = [
    path("", home, name="home"),
    path("projects/<slug:project>/search/", search, name="search"),
    path("", include("accounts.urls")),
    path("", include("endpoints.urls")),
    path("", include("monitoring.urls")),
    path("", include("billing.urls")),
    path("", include("gateway.jobs.urls")),
    path("api/", api.urls),
    path("admin/", admin.site.urls),
]

handler400 = "tir_console.home.bad_request"
