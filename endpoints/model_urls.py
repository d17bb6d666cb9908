"""The registry's addresses, beneath a project's models/."""

from django.urls import path

from endpoints import draft_views, import_views, model_views, storage_views

DRAFT = "<slug:name>/drafts/<uuid:pk>/"
urlpatterns = [
    path("", model_views.models, name="models"),
    path("new/", model_views.new, name="new_model"),
    path("storage/", storage_views.storage, name="storage"),
    path("<slug:name>/", model_views.model, name="model"),
    path("<slug:name>/deploy/", model_views.deploy, name="deploy_model"),
    path("<slug:name>/delete/", model_views.delete, name="delete_model"),
    path("<slug:name>/versions/<int:number>/", model_views.version, name="version"),
    path("<slug:name>/versions/<int:number>/delete/", model_views.delete_version, name="delete_version"),
    path("<slug:name>/import/", import_views.new, name="import_version"),
    path("<slug:name>/imports/<uuid:pk>/", import_views.show, name="import"),
    path("<slug:name>/imports/<uuid:pk>/retry/", import_views.retry, name="retry_import"),
    path("<slug:name>/imports/<uuid:pk>/cancel/", import_views.cancel, name="cancel_import"),
    path("<slug:name>/drafts/", draft_views.begin, name="begin_version"),
    path(DRAFT, draft_views.draft, name="version_draft"),
    path(f"{DRAFT}publish/", draft_views.publish, name="publish_version"),
    path(f"{DRAFT}discard/", draft_views.discard, name="discard_version_draft"),
    path(f"{DRAFT}files/<uuid:upload>/remove/", draft_views.remove_file, name="remove_file"),
    path(f"{DRAFT}uploads/", draft_views.uploads, name="uploads"),
    path(f"{DRAFT}uploads/<uuid:upload>/", draft_views.upload, name="upload"),
]
