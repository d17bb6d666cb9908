"""Doors, accounts, projects, members and keys."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from accounts.views import account, entry, keys, projects, services
from accounts.views.jwks import jwks

app_name = "accounts"
urlpatterns = [
    path(".well-known/jwks.json", jwks, name="jwks"),
    path("login/", entry.LogIn.as_view(), name="login"),
    path("login/link/<str:token>/", entry.link, name="link"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("signup/", entry.sign_up, name="signup"),
    path("signup/done/", entry.signed_up, name="signed_up"),
    path("signup/confirm/<str:token>/", entry.confirm, name="confirm"),
    path("password/forgotten/", entry.reset, name="reset"),
    path("password/forgotten/sent/", entry.reset_sent, name="reset_sent"),
    path("password/new/<str:uidb64>/<str:token>/", entry.ResetConfirm.as_view(), name="reset_confirm"),
    path("account/", account.account, name="account"),
    path("account/password/", account.change_password, name="change_password"),
    path("invitations/<str:token>/", projects.invitation, name="invitation"),
    path("projects/new/", projects.new, name="new_project"),
    path("projects/<slug:project>/rename/", projects.rename, name="rename"),
    path("projects/<slug:project>/members/", projects.members, name="members"),
    path("projects/<slug:project>/members/invite/", projects.invite, name="invite"),
    path("projects/<slug:project>/members/<int:pk>/role/", projects.change_role, name="change_role"),
    path("projects/<slug:project>/members/<int:pk>/remove/", projects.remove, name="remove_member"),
    path("projects/<slug:project>/invitations/<int:pk>/withdraw/", projects.withdraw, name="withdraw"),
    path("projects/<slug:project>/keys/", keys.keys, name="keys"),
    path("projects/<slug:project>/keys/new/", keys.new, name="new_key"),
    path("projects/<slug:project>/keys/<int:pk>/change/", keys.change, name="change_key"),
    path("projects/<slug:project>/keys/<int:pk>/revoke/", keys.revoke, name="revoke_key"),
    path("projects/<slug:project>/service-accounts/", services.accounts, name="services"),
    path("projects/<slug:project>/service-accounts/new/", services.new, name="new_service"),
    path("projects/<slug:project>/service-accounts/<int:pk>/", services.account, name="service"),
    path("projects/<slug:project>/service-accounts/<int:pk>/change/", services.change, name="change_service"),
    path("projects/<slug:project>/service-accounts/<int:pk>/rotate/", services.rotate, name="rotate_service"),
    path("projects/<slug:project>/service-accounts/<int:pk>/disable/", services.disable, name="disable_service"),
    path("projects/<slug:project>/service-accounts/<int:pk>/enable/", services.enable, name="enable_service"),
    path("projects/<slug:project>/service-accounts/<int:pk>/delete/", services.delete, name="delete_service"),
    path(
        "projects/<slug:project>/service-accounts/<int:pk>/credentials/<int:credential>/revoke/",
        services.revoke,
        name="revoke_credential",
    ),
]
