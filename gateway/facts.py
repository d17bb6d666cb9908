"""Routes and keys out of the database: seven queries at any size, and one cheap look at whether to."""

from collections import defaultdict
from datetime import UTC
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection
from django.db.models import F, OuterRef, Subquery
from django.db.models.fields.json import KeyTransform
from django.utils import timezone

from accounts.models import ApiKey, Membership, ServiceAccount, SigningKey, User
from accounts.roles import RIGHTS, Right
from endpoints.models import Admission as Rules
from endpoints.models import Endpoint, Instance, Phase, Revision
from endpoints.spec import MODEL_SERVERS, Method
from gateway.routes import DEFAULT_ADMISSION, Admission, Key, Quotas, Route, RouteTable, Upstream
from gateway.tokens import Trust
from monitoring.models import BodySampling

DEFAULTS = ("temperature", "top_k", "top_p")
MODEL_NAMES = ("model", "model_id")  # of the source: in the registry, on the Hub
QUOTAS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
ALLOWANCE = ("endpoint_ids", *QUOTAS)
RULES = (*QUOTAS, "queue_limit", "queue_seconds", "wake_seconds", "origins", "max_response_mb")
STAMP = """
SELECT (SELECT (count(*), coalesce(sum(hashtextextended(
            concat_ws('|', id, name, region_id, desired, status, wished_at, serving_revision_id,
                      target_concurrency, wanted, notice), 0)), 0))::text
          FROM {endpoints} WHERE deleted_at IS NULL),
       (SELECT (count(*), coalesce(sum(hashtextextended(
            concat_ws('|', id, endpoint_id, revision_id, state, address), 0)), 0))::text
          FROM {instances} WHERE ended_at IS NULL),
       (SELECT (count(*), coalesce(sum(hashtextextended(
            (id, project_id, scopes, expires_at, service_account_id, endpoint_ids, requests_per_minute,
             tokens_per_minute, concurrent_requests)::text, 0)), 0))::text
          FROM {keys} WHERE revoked_at IS NULL),
       (SELECT (count(*), coalesce(sum(hashtextextended(accounts::text, 0)), 0))::text
          FROM {accounts} AS accounts),
       (SELECT (count(*), coalesce(sum(hashtextextended(concat_ws('|', user_id, project_id, role), 0)), 0))::text
          FROM {members} JOIN {people} AS people ON people.id = user_id AND people.is_active),
       (SELECT (count(*), coalesce(sum(hashtextextended(kid, 0)), 0))::text
          FROM {signers} WHERE retired_at IS NULL OR retired_at > now() - interval '1 hour'),
       (SELECT (count(*), coalesce(sum(id), 0))::text FROM {phases} WHERE state = 'running'),
       (SELECT coalesce(max(id), 0)::text FROM {revisions}),
       (SELECT (count(*), coalesce(sum(hashtextextended(rules::text, 0)), 0))::text FROM {rules} AS rules),
       (SELECT (count(*), coalesce(sum(hashtextextended(concat_ws('|', endpoint_id, one_in), 0)), 0))::text
          FROM {samplings})
"""

Stamp = tuple[str, ...]


def stamp() -> Stamp:
    """A value that differs whenever `table` would; a few milliseconds for thousands of endpoints."""
    tables = {
        "endpoints": Endpoint._meta.db_table,
        "instances": Instance._meta.db_table,
        "keys": ApiKey._meta.db_table,
        "accounts": ServiceAccount._meta.db_table,
        "members": Membership._meta.db_table,
        "people": User._meta.db_table,
        "signers": SigningKey._meta.db_table,
        "phases": Phase._meta.db_table,
        "revisions": Revision._meta.db_table,
        "rules": Rules._meta.db_table,
        "samplings": BodySampling._meta.db_table,
    }
    with connection.cursor() as cursor:
        cursor.execute(STAMP.format(**tables))
        row: Stamp = cursor.fetchone()
    return row


def table() -> RouteTable:
    """Everything the gateway knows, as it stands now."""
    instances, phases, said = _instances(), _phases(), _said()
    routes = [_route(row, instances[row["id"]], phases.get(row["id"], ""), said) for row in _endpoints()]
    return RouteTable(routes, _keys(), _trust())


def _endpoints() -> list[dict[str, Any]]:
    newest = Revision.objects.filter(endpoint=OuterRef("pk")).order_by("-number").values("pk")[:1]
    rows = Endpoint.objects.living().annotate(newest=Subquery(newest), region_slug=F("region__slug"))
    names = ("id", "name", "region_slug", "project_id", "desired", "status", "wished_at", "wished_by")
    rules = {f"rules_{name}": F(f"admission__{name}") for name in RULES}
    steered = ("serving_revision_id", "newest", "target_concurrency", "wanted", "notice")
    rules["bodies_one_in"] = F("body_sampling__one_in")
    return list(rows.values(*names, *steered, **rules))


def _instances() -> dict[int, list[Upstream]]:
    found: dict[int, list[Upstream]] = defaultdict(list)
    names = ("endpoint_id", "name", "address", "state", "revision_id")
    rows = Instance.objects.live().exclude(address="").order_by("id").values_list(*names)
    for endpoint_id, name, address, state, revision_id in rows:
        place = urlsplit(address)
        if place.hostname and place.port:
            ready = state == "ready"
            found[endpoint_id].append(Upstream(name, place.hostname, place.port, ready, revision_id))
    return found


def _phases() -> dict[int, str]:
    """What a deployment under way is doing, by endpoint."""
    running = Phase.objects.filter(state="running", deployment__state="running").select_related("deployment")
    return {phase.deployment.endpoint_id: str(phase.get_kind_display()) for phase in running}


class Said(NamedTuple):
    """What a revision says of calls: defaults for sampling, the context length, whether any path passes, whether
    it is an image of the user's own, and how its model is called where it comes from."""

    defaults: dict[str, float | int]
    context_length: int
    open: bool
    foreign: bool = False
    aliases: tuple[str, ...] = ()


SILENT = Said({}, 0, open=False)


def _said() -> dict[int, Said]:
    """By revision that serves or may soon."""
    named = {name: KeyTransform(name, KeyTransform("llm", "spec")) for name in (*DEFAULTS, "max_sequence_length")}
    named |= {name: KeyTransform(name, "spec") for name in ("method", "framework")}
    named |= {name: KeyTransform(name, KeyTransform("source", "spec")) for name in MODEL_NAMES}
    wanted = Revision.objects.filter(endpoint__deleted_at=None).values_list("id")
    found: dict[int, Said] = {}
    for row in wanted.annotate(**named).values("id", *named):
        values = {name: row[name] for name in DEFAULTS if isinstance(row[name], int | float)}
        if row["method"] == Method.CUSTOM:  # nothing is known of what it takes
            found[row["id"]] = SILENT._replace(open=True, foreign=True)
            continue
        any_path, aliases = (
            row["framework"] in MODEL_SERVERS,
            tuple(row[name] for name in MODEL_NAMES if row[name]),
        )
        found[row["id"]] = Said(values, row["max_sequence_length"] or 0, any_path, aliases=aliases)
    return found


def _route(row: dict[str, Any], instances: list[Upstream], phase: str, said: dict[int, Said]) -> Route:
    revision_id = row["serving_revision_id"] or row["newest"] or 0
    revision = said.get(revision_id, SILENT)
    return Route(
        endpoint_id=row["id"],
        name=row["name"],
        region=row["region_slug"],
        project_id=row["project_id"],
        revision_id=revision_id,
        desired=row["desired"],
        state=row["status"],
        state_since=row["wished_at"].astimezone(UTC),
        state_by=row["wished_by"],
        phase=phase or row["notice"],
        instances=tuple(instances),
        defaults=revision.defaults,
        aliases=revision.aliases,
        capacity_per_instance=row["target_concurrency"],
        context_length=revision.context_length,
        admission=_admission(row),
        bodies_one_in=row["bodies_one_in"] or 0,
        awaited=_is_awaited(row, instances),
        asleep=row["wanted"] == 0 and _is_awaited(row, instances),
        open=revision.open,
        foreign=revision.foreign,
    )


def _is_awaited(row: dict[str, Any], instances: list[Upstream]) -> bool:
    """Whether one becomes ready without a person's doing. Not where none has ever served, which proves nothing
    of the next, nor where the region has no room and none of its own instances is leaving or coming."""
    able = row["desired"] == "running" and row["serving_revision_id"] is not None and row["status"] != "failed"
    return able and (not row["notice"] or bool(instances))


def _admission(row: dict[str, Any]) -> Admission:
    """An endpoint without a row of its own has none of the columns."""
    if row["rules_queue_limit"] is None:
        return DEFAULT_ADMISSION
    quotas = Quotas(*(row[f"rules_{name}"] for name in QUOTAS))
    most = row["rules_max_response_mb"]
    return Admission(
        quotas=None if quotas == Quotas() else quotas,
        queue_limit=row["rules_queue_limit"],
        queue_seconds=row["rules_queue_seconds"],
        wake_seconds=row["rules_wake_seconds"],
        origins=frozenset(origin.encode() for origin in row["rules_origins"]),
        max_response_bytes=most and most * 2**20,
    )


def _keys() -> dict[str, Key]:
    """By digest; expired ones too, so that their callers are told which it is."""
    names = ("digest", "id", "project_id", "scopes", "expires_at", "service_account_id", *ALLOWANCE)
    accounts = {f"account_{name}": F(f"service_account__{name}") for name in ALLOWANCE}
    rows = ApiKey.objects.unrevoked().values(*names, **accounts)
    return {row["digest"]: _key(row) for row in rows}


def _key(row: dict[str, Any]) -> Key:
    account = row["service_account_id"]
    endpoints, *limits = (row[f"account_{name}" if account else name] for name in ALLOWANCE)
    quotas = Quotas(*limits)
    return Key(
        id=row["id"],
        project_id=row["project_id"],
        scopes=frozenset(row["scopes"]),
        expires_at=row["expires_at"],
        endpoints=None if endpoints is None else frozenset(endpoints),
        quotas=None if quotas == Quotas() else quotas,
        holder=f"account:{account}" if account else "",
    )


def _trust() -> Trust:
    """Keys that may have signed what still lives, and who may call by themselves: whoever may operate."""
    signers = SigningKey.objects.published(timezone.now()).values_list("kid", "public")
    may_call = Membership.objects.filter(role__in=RIGHTS[Right.OPERATE], user__is_active=True)
    return Trust(
        issuer=settings.CONSOLE_URL,
        signers={kid: bytes(public) for kid, public in signers},
        callers=frozenset(may_call.values_list("user_id", "project_id")),
    )
