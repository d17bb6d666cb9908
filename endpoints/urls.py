from django.urls import include, path

from endpoints import (
    acts,
    admission_views,
    file_views,
    playground,
    region_views,
    scaling_views,
    secret_views,
    views,
)

app_name = "endpoints"
urlpatterns = [
    path("regions/", region_views.regions, name="regions"),
    path("regions/new/", region_views.new, name="new_region"),
    path("regions/<slug:slug>/", region_views.region, name="region"),
    path("regions/<slug:slug>/state/", region_views.state, name="region_state"),
    path("regions/<slug:slug>/test/", region_views.test, name="test_region"),
    path("regions/<slug:slug>/delete/", region_views.delete, name="delete_region"),
    path("projects/<slug:project>/endpoints/", views.listing, name="list"),
    path("projects/<slug:project>/endpoints/new/", include("endpoints.wizard.urls")),
    path("projects/<slug:project>/endpoints/<slug:name>/try-token/", playground.try_token, name="try_token"),
    path("projects/<slug:project>/endpoints/<slug:name>/", views.detail, name="detail"),
    path("projects/<slug:project>/endpoints/<slug:name>/scaling/", scaling_views.policy, name="scaling"),
    path("projects/<slug:project>/endpoints/<slug:name>/admission/", admission_views.rules, name="admission"),
    *(
        path(f"projects/<slug:project>/endpoints/<slug:name>/{verb}/", views.act, {"verb": verb}, name=verb)
        for verb in acts.VERBS
    ),
    path("projects/<slug:project>/models/", include("endpoints.model_urls")),
    path("model-files/<path:path>", file_views.model_file, name="model_file"),
    path("projects/<slug:project>/secrets/", secret_views.secrets, name="secrets"),
    path("projects/<slug:project>/secrets/<slug:name>/replace/", secret_views.replace, name="replace_secret"),
    path("projects/<slug:project>/secrets/<slug:name>/delete/", secret_views.delete, name="delete_secret"),
]
