"""Doors × people: every address of the console, and who comes in.

A new URL, REST route or socket without a line here fails the first test of its kind.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.tokens import default_token_generator
from django.db import connections, transaction
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from accounts import links
from accounts.models import Invitation, ServiceAccount, User
from accounts.roles import RIGHTS, Right, Role
from endpoints.models import Draft, ModelVersion, RegisteredModel, Secret, VersionDraft, VersionImport
from endpoints.sources import SourceFile
from endpoints.spec import SourceSpec
from gateway.jobs.models import AsyncRequest
from monitoring.live import sockets
from tests import make
from tests.monitoring import measured

IN, LOGIN, REFUSED, MISSING = "comes in", "is sent to log in", "is refused", "finds nothing"
ROLES = [role.value for role in Role]
PEOPLE = ["anonymous", *ROLES, "charlie", "staff"]


@dataclass(frozen=True)
class Door:
    method: str
    outcome: dict[str, str]


def everybody(method: str = "get") -> Door:
    return Door(method, dict.fromkeys(PEOPLE, IN))


def logged_in(method: str = "get") -> Door:
    return Door(method, dict.fromkeys(PEOPLE, IN) | {"anonymous": LOGIN})


def members(right: Right, method: str = "get") -> Door:
    """Members with the right; strangers find nothing, and staff are strangers too."""
    outcome = {role.value: IN if role in RIGHTS[right] else REFUSED for role in Role}
    return Door(method, outcome | {"anonymous": LOGIN, "charlie": MISSING, "staff": MISSING})


def its_author(method: str = "get") -> Door:
    """A draft opens to the developer who began it and to nobody else."""
    mine = members(Right.OPERATE, method).outcome
    return Door(method, mine | {Role.OWNER.value: MISSING, Role.ADMIN.value: MISSING})


def the_staff(method: str = "get") -> Door:
    """Whoever runs the platform; nobody else, whatever their role in a project."""
    return Door(method, dict.fromkeys(PEOPLE, REFUSED) | {"anonymous": LOGIN, "staff": IN})


VIEW, LOGS, OPERATE, ADMINISTER = Right.VIEW, Right.LOGS, Right.OPERATE, Right.ADMINISTER
DOORS: dict[str, Door] = {
    "home": logged_in(),
    "search": members(VIEW),
    "accounts:login": everybody(),
    "accounts:link": everybody(),
    "accounts:logout": logged_in("post"),
    "accounts:signup": everybody(),
    "accounts:signed_up": everybody(),
    "accounts:confirm": everybody(),
    "accounts:reset": everybody(),
    "accounts:reset_sent": everybody(),
    "accounts:reset_confirm": everybody(),
    "accounts:account": logged_in(),
    "accounts:change_password": logged_in("post"),
    "accounts:invitation": Door("get", dict.fromkeys(PEOPLE, REFUSED) | {"anonymous": LOGIN, "charlie": IN}),
    "accounts:new_project": logged_in(),
    "accounts:rename": members(ADMINISTER, "post"),
    "accounts:members": members(VIEW),
    "accounts:invite": members(ADMINISTER, "post"),
    "accounts:change_role": members(ADMINISTER, "post"),
    "accounts:remove_member": members(ADMINISTER, "post"),
    "accounts:withdraw": members(ADMINISTER, "post"),
    "accounts:keys": members(VIEW),
    "accounts:new_key": members(OPERATE),
    "accounts:change_key": members(ADMINISTER),  # it manages
    "accounts:revoke_key": members(ADMINISTER, "post"),
    "accounts:services": members(VIEW),
    "accounts:new_service": members(OPERATE),
    "accounts:service": members(VIEW),
    "accounts:change_service": members(OPERATE),
    "accounts:rotate_service": members(OPERATE, "post"),
    "accounts:disable_service": members(OPERATE, "post"),
    "accounts:enable_service": members(OPERATE, "post"),
    "accounts:delete_service": members(OPERATE, "post"),
    "accounts:revoke_credential": members(OPERATE, "post"),
    "accounts:jwks": everybody(),
    "endpoints:regions": the_staff(),
    "endpoints:new_region": the_staff(),
    "endpoints:region": the_staff(),
    "endpoints:region_state": the_staff(),
    "endpoints:test_region": the_staff("post"),
    "endpoints:delete_region": the_staff("post"),
    "endpoints:list": members(VIEW),
    "endpoints:new": members(OPERATE, "post"),
    "endpoints:resume": its_author(),
    "endpoints:panel": its_author("post"),
    "endpoints:draft_name": its_author("get"),
    "endpoints:undo": its_author("post"),
    "endpoints:draft_secret": its_author("post"),
    "endpoints:discard": its_author("post"),
    "endpoints:step": its_author(),
    "endpoints:try_token": members(OPERATE, "post"),
    "endpoints:detail": members(VIEW),
    "endpoints:scaling": members(OPERATE, "post"),
    "endpoints:admission": members(OPERATE, "post"),
    "endpoints:scale": members(OPERATE, "post"),
    "endpoints:emergency": members(OPERATE, "post"),
    "endpoints:end-emergency": members(OPERATE, "post"),
    "endpoints:stop": members(OPERATE, "post"),
    "endpoints:start": members(OPERATE, "post"),
    "endpoints:restart": members(OPERATE, "post"),
    "endpoints:delete": members(OPERATE, "post"),
    "endpoints:cancel": members(OPERATE, "post"),
    "endpoints:models": members(VIEW),
    "endpoints:model": members(VIEW),
    "endpoints:new_model": members(OPERATE),
    "endpoints:storage": members(VIEW),
    "endpoints:deploy_model": members(OPERATE, "post"),
    "endpoints:delete_model": members(OPERATE, "post"),
    "endpoints:model_file": Door("get", dict.fromkeys(PEOPLE, REFUSED)),  # instances only, by their token
    "endpoints:version": members(VIEW),
    "endpoints:delete_version": members(OPERATE, "post"),
    "endpoints:begin_version": members(OPERATE, "post"),
    "endpoints:import_version": members(OPERATE),
    "endpoints:import": members(OPERATE),
    "endpoints:retry_import": members(OPERATE, "post"),
    "endpoints:cancel_import": members(OPERATE, "post"),
    "endpoints:version_draft": members(OPERATE),
    "endpoints:publish_version": members(OPERATE, "post"),
    "endpoints:discard_version_draft": members(OPERATE, "post"),
    "endpoints:remove_file": members(OPERATE, "post"),
    "endpoints:uploads": members(OPERATE, "post"),
    "endpoints:upload": members(OPERATE, "patch"),
    "endpoints:secrets": members(VIEW),
    "endpoints:replace_secret": members(OPERATE, "post"),
    "endpoints:delete_secret": members(OPERATE, "post"),
    "monitoring:kpis": members(VIEW),
    "monitoring:charts": members(VIEW),
    "monitoring:chart": members(VIEW),
    "monitoring:chart-csv": members(VIEW),
    "monitoring:logs": members(LOGS),
    "monitoring:log-download": members(LOGS),
    "monitoring:requests": members(LOGS),
    "monitoring:request": members(LOGS),
    "monitoring:bodies": members(OPERATE),
    "monitoring:stop-bodies": members(OPERATE, "post"),
    "billing:cost": members(VIEW),
    "billing:project_cost": members(VIEW),
    "jobs:list": members(VIEW),
    "jobs:detail": members(VIEW),
    "jobs:cancel": members(OPERATE, "post"),
    "jobs:redeliver": members(OPERATE, "post"),
    "jobs:secret": members(VIEW),
    "jobs:rotate_secret": members(OPERATE, "post"),
}
REGISTRY = ["model", "deploy_model", "delete_model", "version", "delete_version", "begin_version", "version_draft"]
REGISTRY += ["publish_version", "discard_version_draft", "remove_file", "uploads", "upload"]
IMPORTS = ["import", "retry_import", "cancel_import"]
REGISTRY += ["import_version", *IMPORTS]
IMPORTS = [f"endpoints:{name}" for name in IMPORTS]  # whose pk is an import's
REGISTRY = [f"endpoints:{name}" for name in REGISTRY]  # whose name is a model's
# route of the REST API → (method, path beneath /api/v1); all take a key that manages, of the endpoint's project
ROUTES = {
    "create_endpoint": ("post", "/endpoints"),
    "list_endpoints": ("get", "/endpoints"),
    "get_endpoint": ("get", "/endpoints/demo"),
    "delete_endpoint": ("delete", "/endpoints/demo"),
    "scale_endpoint": ("post", "/endpoints/demo/scale"),
    "update_scaling": ("patch", "/endpoints/demo/scaling"),
    "get_admission": ("get", "/endpoints/demo/admission"),
    "update_admission": ("patch", "/endpoints/demo/admission"),
    "emergency_scale": ("post", "/endpoints/demo/emergency-scale"),
    "end_emergency": ("delete", "/endpoints/demo/emergency-scale"),
    "stop_endpoint": ("post", "/endpoints/demo/stop"),
    "start_endpoint": ("post", "/endpoints/demo/start"),
    "restart_endpoint": ("post", "/endpoints/demo/restart"),
    "list_events": ("get", "/endpoints/demo/events"),
    "list_models": ("get", "/models"),
    "create_model": ("post", "/models"),
    "get_model": ("get", "/models/tiny"),
    "update_model": ("patch", "/models/tiny"),
    "delete_model": ("delete", "/models/tiny"),
    "get_version": ("get", "/models/tiny/versions/1"),
    "delete_version": ("delete", "/models/tiny/versions/1"),
    "create_draft": ("post", "/models/tiny/drafts"),
    "get_draft": ("get", "/models/tiny/drafts/{making}"),
    "discard_draft": ("delete", "/models/tiny/drafts/{making}"),
    "publish_draft": ("post", "/models/tiny/drafts/{making}/publish"),
    "create_import": ("post", "/models/tiny/imports"),
    "list_imports": ("get", "/models/tiny/imports"),
    "get_import": ("get", "/models/tiny/imports/{coming}"),
    "retry_import": ("post", "/models/tiny/imports/{coming}/retry"),
    "cancel_import": ("post", "/models/tiny/imports/{coming}/cancel"),
    "create_upload": ("post", "/models/tiny/drafts/{making}/uploads"),
    "upload_offset": ("head", "/models/tiny/drafts/{making}/uploads/{upload}"),
    "upload_piece": ("patch", "/models/tiny/drafts/{making}/uploads/{upload}"),
    "remove_upload": ("delete", "/models/tiny/drafts/{making}/uploads/{upload}"),
    "read_logs": ("get", "/endpoints/demo/logs"),
    "list_requests": ("get", "/endpoints/demo/requests"),
    "read_request": ("get", "/endpoints/demo/requests/r-1"),
    "read_bodies_kept": ("get", "/endpoints/demo/bodies"),
    "keep_bodies": ("put", "/endpoints/demo/bodies"),
    "stop_keeping_bodies": ("delete", "/endpoints/demo/bodies"),
    "list_keys": ("get", "/keys"),
    "get_key": ("get", "/keys/{key.pk}"),
    "update_key": ("patch", "/keys/{key.pk}"),
    "list_service_accounts": ("get", "/service-accounts"),
    "create_service_account": ("post", "/service-accounts"),
    "get_service_account": ("get", "/service-accounts/shop"),
    "update_service_account": ("patch", "/service-accounts/shop"),
    "delete_service_account": ("delete", "/service-accounts/shop"),
    "rotate_service_account": ("post", "/service-accounts/shop/rotate"),
    "disable_service_account": ("post", "/service-accounts/shop/disable"),
    "enable_service_account": ("post", "/service-accounts/shop/enable"),
    "revoke_credential": ("delete", "/service-accounts/shop/credentials/{credential}"),
    "list_async_requests": ("get", "/async-requests"),
    "get_async_request": ("get", "/async-requests/one"),
    "cancel_async_request": ("post", "/async-requests/one/cancel"),
    "redeliver_async_request": ("post", "/async-requests/two/redeliver"),
    "get_webhook_secret": ("get", "/webhook-secret"),
    "rotate_webhook_secret": ("post", "/webhook-secret/rotate"),
}
TUS_BESIDE = {"api:tus_otherwise", "api:tus_abilities"}  # of the same uploads, by the same keys: see test_tus
CALLERS = {"issue_token": ("post", "/tokens")}  # these take a key that calls, and act for that key
# of which every project has its own
COLLECTIONS = ["/endpoints", "/models", "/keys", "/service-accounts", "/async-requests"]
COLLECTIONS += ["/webhook-secret", "/webhook-secret/rotate"]
OPEN_API_PAGES = {"api:api-root", "api:openapi-json", "api:openapi-view"}
SOCKETS = {"ws/projects/<slug:project>/": "ws/projects/alpha/"}
SOCKETS |= {"ws/projects/<slug:project>/endpoints/<slug:endpoint>/": "ws/projects/alpha/endpoints/demo/"}


@dataclass
class World:
    people: dict[str, User]
    values: dict[str, Any]


@pytest.fixture
def world(settings: Any, db: None) -> World:
    """Alpha with a member of each role, one of everything in it, Charlie of another project, and staff."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    owner = make.user("owner")
    alpha = make.project("Alpha", owner)
    people = {"owner": owner} | {role: make.member(alpha, role, role) for role in ROLES if role != Role.OWNER}
    people["charlie"], people["staff"] = make.user("charlie"), make.user("staff", is_staff=True, is_superuser=True)
    make.project("Beta", people["charlie"])
    endpoint = make.endpoint(alpha, name="demo", ready=1)
    model = RegisteredModel.objects.create(project=alpha, name="tiny")
    ModelVersion.objects.create(model=model, number=1, path="t", files=[], size_bytes=1)
    making = VersionDraft.begin(model, by=owner)
    upload = making.expect("weights/a.bin", 2, by=owner)
    Secret.store(alpha, "token", "value", by=owner)
    key, _ = make.key(alpha, "manage")
    account, credential, _ = ServiceAccount.open(alpha, name="shop", by=owner)
    draft = Draft.objects.create(project=alpha, user=people["developer"], answers={"basics": {"name": "mine"}})
    invitation = Invitation.send(alpha, people["charlie"].email, Role.VIEWER, by=owner)
    values = {"project": "alpha", "name": "demo", "draft": draft.pk, "step": "basics", "chart": "latency"}
    elsewhere = SourceSpec(kind="git", url="https://git.example.com/m.git", revision="ab" * 20)
    values["coming"] = VersionImport.begin(model, elsewhere, [SourceFile("a", 1)], by=owner).pk
    values |= {"number": 1, "making": making.pk, "upload": upload.pk}
    values |= {"account": account, "credential": credential.pk}
    values |= {"instance": endpoint.instances.first(), "invitation": invitation, "key": key, "user": owner}
    values["record"] = measured.request(endpoint).pk
    values["slug"] = endpoint.region.slug
    for request_id in ("one", "two"):
        asked = {"project": alpha, "endpoint": endpoint, "path": "v1/completions", "request_id": request_id}
        AsyncRequest.submit(body=b"{}", webhook="https://example.com/hook", **asked)
    AsyncRequest.objects.get(request_id="two").cancel(by="owner")
    values["request_id"] = "one"
    values |= {role: alpha.memberships.get(role=role) for role in ROLES if role != Role.OWNER}
    return World(people, values)


def addresses(
    patterns: Any = None, space: str = "", given: tuple[str, ...] = ()
) -> Iterator[tuple[str, set[str]]]:
    """(name, arguments) of every address of the console, walked from the URLconf."""
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        own = (*given, *entry.pattern.regex.groupindex)
        if isinstance(entry, URLResolver):
            yield from addresses(entry.url_patterns, entry.namespace or space, own)
        elif isinstance(entry, URLPattern):
            yield f"{space}:{entry.name}" if space else str(entry.name), set(own)


def address(name: str, arguments: set[str], world: World) -> str:
    special: dict[str, Any] = {
        "accounts:link": {"token": links.make(world.values["user"])},
        "accounts:confirm": {"token": "nothing"},
        "endpoints:model_file": {"path": "tiny.gguf"},
        "accounts:invitation": {"token": world.values["invitation"].token},
        "accounts:withdraw": {"pk": world.values["invitation"].pk},
        "accounts:change_role": {"pk": world.values["viewer"].pk},
        "accounts:remove_member": {"pk": world.values["admin"].pk},  # everybody may remove themselves
        "accounts:change_key": {"pk": world.values["key"].pk},
        "accounts:revoke_key": {"pk": world.values["key"].pk},
        **{name: {"pk": world.values["coming"]} for name in IMPORTS},
        **{
            name: {"pk": world.values["account"].pk} for name in DOORS if "service" in name or "credential" in name
        },
        "accounts:reset_confirm": {
            "uidb64": urlsafe_base64_encode(force_bytes(world.values["user"].pk)),
            "token": default_token_generator.make_token(world.values["user"]),
        },
    }
    own = dict.fromkeys(REGISTRY, "tiny")
    own |= {"endpoints:replace_secret": "token", "endpoints:delete_secret": "token"}
    values = (
        world.values
        | {"pk": world.values["making"]}
        | special.get(name, {})
        | ({"name": own[name]} if name in own else {})
    )
    return reverse(name, kwargs={argument: values[argument] for argument in arguments})


def outcome(client: Client, method: str, path: str) -> str:
    answer = client.generic(method.upper(), path)
    assert answer.status_code not in (405, 500), f"{method} {path} answers {answer.status_code}"
    if answer.status_code == 302 and answer["Location"].startswith(reverse(settings.LOGIN_URL) + "?next="):
        return LOGIN
    return {401: REFUSED, 403: REFUSED, 404: MISSING}.get(answer.status_code, IN)


def test_every_address_of_the_console_stands_in_the_table() -> None:
    walked = {name for name, _ in addresses() if not name.startswith(("admin:", "api:"))}
    assert walked == set(DOORS), "give a new address its line in DOORS, and take the line of a gone one out"


@pytest.mark.parametrize("name", DOORS)
def test_each_address_opens_only_to_those_it_is_for(name: str, world: World) -> None:
    arguments = next(arguments for found, arguments in addresses() if found == name)
    path, door, seen = address(name, arguments, world), DOORS[name], {}
    for who in PEOPLE:
        client = Client()
        with transaction.atomic():
            if who != "anonymous":
                client.force_login(world.people[who])
            seen[who] = outcome(client, door.method, path)
            transaction.set_rollback(True)
    assert seen == door.outcome


def test_the_administration_is_for_staff(world: World) -> None:
    names = sorted({name for name, arguments in addresses() if name.startswith("admin:") and not arguments})
    clients = {who: Client() for who in [*ROLES, "charlie"]}
    for who, client in clients.items():
        client.force_login(world.people[who])
    tried = 0
    for name in names:
        try:
            path = reverse(name)
        except NoReverseMatch:
            continue
        if name in ("admin:login", "admin:logout"):
            continue
        tried += 1
        for who, client in clients.items():
            assert client.get(path).status_code in (302, 403), f"{who} sees {path}"
        assert Client().get(path).status_code == 302, f"anybody sees {path}"
    assert tried > 10


# ── REST ─────────────────────────────────────────────────────────────────────────────────────────
def test_every_route_of_the_rest_api_stands_in_the_table() -> None:
    from tir_console.api import api  # noqa: PLC0415 (once per process)

    document = api.get_openapi_schema(path_prefix="/api/")
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    walked = {operation.rpartition("_api_")[2] for operation in operations}
    assert walked == ROUTES.keys() | CALLERS.keys()
    pages = {name for name, _ in addresses() if name.startswith("api:")} - OPEN_API_PAGES
    assert pages == {f"api:{name}" for name in ROUTES | CALLERS} | {"api:elsewhere", *TUS_BESIDE}


@pytest.mark.parametrize("route", ROUTES)
def test_each_route_takes_a_key_that_manages_this_project(route: str, world: World) -> None:
    method, path = ROUTES[route]
    path = path.format_map(world.values)
    alpha, beta = (world.people[who].memberships.get().project for who in ("owner", "charlie"))
    secrets = {"inference": make.key(alpha, "inference")[1], "manage": make.key(alpha, "manage")[1]}
    secrets |= {"other project": make.key(beta, "manage")[1], "unknown": "tir_00000000_nothing"}
    expired, secrets["expired"] = make.key(alpha, "manage", expires_at=timezone.now() - timedelta(seconds=1))
    revoked, secrets["revoked"] = make.key(alpha, "manage")
    revoked.revoke(at=timezone.now())
    assert expired.state == "expired"
    seen = {"none": _call(method, path, None), "session": _call(method, path, None, user=world.people["owner"])}
    for kind, secret in secrets.items():
        with transaction.atomic():
            seen[kind] = _call(method, path, secret)
            transaction.set_rollback(True)
    if path in COLLECTIONS:
        assert seen.pop("other project") in (200, 201, 422)
    else:
        assert seen.pop("other project") == 404
    assert seen.pop("manage") in (200, 201, 202, 204, 409, 422)
    assert seen == {"none": 401, "session": 401, "unknown": 401, "expired": 401, "revoked": 401, "inference": 403}


@pytest.mark.parametrize("route", CALLERS)
def test_what_a_caller_asks_for_takes_a_key_that_calls(route: str, world: World) -> None:
    method, path = CALLERS[route]
    alpha = world.people["owner"].memberships.get().project
    _, both = make.key(alpha, "inference", "manage")
    seen = {kind: _call(method, path, make.key(alpha, kind)[1]) for kind in ("inference", "manage")}
    seen |= {"both": _call(method, path, both), "unknown": _call(method, path, "tir_00000000_nothing")}
    seen["session"] = _call(method, path, None, user=world.people["owner"])
    assert seen == {"inference": 201, "both": 201, "manage": 403, "unknown": 401, "session": 401}


def _call(method: str, path: str, secret: str | None, *, user: User | None = None) -> int:
    client = Client()
    if user:
        client.force_login(user)
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    body: dict[str, Any] = {"instances": 1} if path.endswith("/scale") else {}
    body |= {"source": {"kind": "gcs"}} if path.endswith("/imports") else {}
    kind = "application/offset+octet-stream" if "/uploads" in path else "application/json"
    if "/uploads" in path:  # two bytes of a new file, or of the one that is awaited
        headers |= {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": "2",
            "Upload-Metadata": "path Yg==",
            "Upload-Offset": "0",
        }
    answer = client.generic(method.upper(), f"/api/v1{path}", json.dumps(body), kind, headers=headers)
    if answer.status_code >= 400 and method != "head":
        assert set(answer.json()["error"]) == {"code", "message", "fields"}
    return int(answer.status_code)


# ── sockets ──────────────────────────────────────────────────────────────────────────────────────
def test_every_socket_stands_in_the_table() -> None:
    assert {str(entry.pattern) for entry in sockets} == set(SOCKETS)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", SOCKETS.values())
async def test_each_socket_closes_on_strangers(path: str) -> None:
    cookies = await database_sync_to_async(_cookies)()
    seen = {who: await _heard(path, cookie) for who, cookie in cookies.items()}
    await database_sync_to_async(connections.close_all)()
    assert seen == dict.fromkeys(ROLES, IN) | {"anonymous": 4401, "charlie": 4404, "staff": 4404}


def _cookies() -> dict[str, str]:
    alpha = make.project("Alpha", make.user("owner"))
    people = {role: make.user("owner") if role == "owner" else make.member(alpha, role, role) for role in ROLES}
    people |= {"charlie": make.user("charlie"), "staff": make.user("staff", is_staff=True, is_superuser=True)}
    make.endpoint(alpha, name="demo")
    found = {"anonymous": ""}
    for who, person in people.items():
        client = Client()
        client.force_login(person)
        found[who] = client.cookies[settings.SESSION_COOKIE_NAME].value
    return found


async def _heard(path: str, cookie: str) -> str | int:
    """IN when a ping is answered, else the code it was closed with."""
    from channels.auth import AuthMiddlewareStack  # noqa: PLC0415 (wants the applications ready)

    headers = [(b"host", b"localhost"), (b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie}".encode())]
    one = WebsocketCommunicator(AuthMiddlewareStack(URLRouter(sockets)), path, headers=headers)
    await one.connect(timeout=30)
    await one.send_json_to({"type": "ping", "id": str(uuid.uuid4())})
    while True:
        message = await one.receive_output(timeout=30)
        if message["type"] == "websocket.close":
            return int(message["code"])
        if '"pong"' in message.get("text", ""):
            await one.disconnect(timeout=60)
            return IN
