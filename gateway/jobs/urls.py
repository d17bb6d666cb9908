from django.urls import path

from gateway.jobs import views

app_name = "jobs"
urlpatterns = [
    path("projects/<slug:project>/async/", views.listing, name="list"),
    path("projects/<slug:project>/async/secret/", views.secret, name="secret"),
    path("projects/<slug:project>/async/secret/rotate/", views.rotate, name="rotate_secret"),
    path("projects/<slug:project>/async/<slug:request_id>/", views.detail, name="detail"),
    path("projects/<slug:project>/async/<slug:request_id>/cancel/", views.cancel, name="cancel"),
    path("projects/<slug:project>/async/<slug:request_id>/redeliver/", views.redeliver, name="redeliver"),
]
