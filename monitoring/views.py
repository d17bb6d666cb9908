"""What an endpoint's page shows of measurements and logs, each under its own URL."""

from __future__ import annotations

import csv
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from endpoints.models import Endpoint, Instance
from monitoring import board, bodies, charts, logs, numbers, passports, remembering
from monitoring.cards import Card, cards
from monitoring.charts import Chart
from monitoring.models import BodySampling, RequestRecord, StatusClass
from monitoring.window import RANGES, Window

NO_LOGS = "Your role sees this endpoint but reads no logs, which can hold what callers sent."


def _endpoint(request: HttpRequest, project: str, name: str) -> Endpoint:
    visible = Endpoint.objects.visible_to(request.user).select_related("project", "region")
    return get_object_or_404(visible, project__slug=project, name=name)


@require_GET
def kpis(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """The tiles as they stand now; ticks keep them up to date."""
    endpoint, at = _endpoint(request, project, name), timezone.now()
    live, speaking = board.live_now()
    facts = board.facts_of([endpoint], live, speaking=speaking, at=at)[endpoint.pk]
    return render(request, "monitoring/kpis.html", {"endpoint": endpoint, "tiles": numbers.tiles(facts)})


@require_GET
def board_of_charts(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """The chart cards, all or those that `only` names, for one range."""
    endpoint = _endpoint(request, project, name)
    window = Window.named(request.GET.get("range", ""), at=timezone.now())
    wanted = [word for word in request.GET.get("only", "").split(",") if word]
    shown = [card for card in cards().values() if not wanted or card.id in wanted]
    context = {
        "endpoint": endpoint,
        "window": window,
        "only": ",".join(wanted),
        "ranges": [
            {"name": one.name, "label": one.name, "current": one == window.range} for one in RANGES.values()
        ],
        "cards": [_drawn(endpoint, card, window) for card in shown],
    }
    return render(request, "monitoring/charts.html", context)


def _drawn(endpoint: Endpoint, card: Card, window: Window) -> dict[str, Any]:
    chart = card.load(endpoint, window)
    kwargs = {"project": endpoint.project.slug, "name": endpoint.name, "chart": card.id}
    csv_url = f"{reverse('monitoring:chart-csv', kwargs=kwargs)}?range={window.range.name}"
    return {"card": card, "chart": chart, "csv_url": csv_url}


@require_GET
def chart(request: HttpRequest, project: str, name: str, chart: str) -> JsonResponse:
    """One chart as JSON: `{"id", "title", "unit", "format", "range", "at", "figure", "table", "absent"}`."""
    card, drawn, window = _one(request, project, name, chart)
    answer = {
        "id": card.id,
        "title": card.title,
        "unit": card.unit,
        "format": card.format,
        "range": window.range.name,
        "at": window.at.isoformat(),
        "figure": drawn.figure,
        "table": charts.table(drawn.figure),
        "absent": drawn.absent,
    }
    return JsonResponse(answer, json_dumps_params={"allow_nan": False})


@require_GET
def chart_csv(request: HttpRequest, project: str, name: str, chart: str) -> HttpResponse:
    """The same numbers as a file; what was not measured is an empty field."""
    card, drawn, window = _one(request, project, name, chart)
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}-{card.id}-{window.range.name}.csv"'
    rows = charts.table(drawn.figure)
    csv.writer(answer).writerows([rows["columns"], *rows["rows"]])
    return answer


def _one(request: HttpRequest, project: str, name: str, chart: str) -> tuple[Card, Chart, Window]:
    endpoint = _endpoint(request, project, name)
    card = cards().get(chart)
    if card is None:
        raise Http404(f"There is no chart “{chart}”. Charts are {', '.join(cards())}.")
    window = Window.named(request.GET.get("range", ""), at=timezone.now())
    return card, card.load(endpoint, window), window


@require_GET
def log_lines(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """The log viewer, or lines as JSON when `after`, `before`, `limit` or an Accept of JSON asks for them."""
    endpoint = _readable(request, project, name)
    instances = list(logs.instances_of(endpoint)[:50])
    chosen = _chosen(endpoint, instances, request.GET.get("instance", ""))
    if _wants_json(request):
        page = logs.page(chosen, **_place(request)) if chosen else logs.Page([])
        return JsonResponse({"instance": chosen.name if chosen else "", **page.as_json()})
    context = {
        "endpoint": endpoint,
        "chosen": chosen,
        "instances": [{"name": one.name, "label": _label(one)} for one in instances],
        "lines": logs.rows(logs.page(chosen)) if chosen else [],
        "live": chosen is not None and chosen.ended_at is None,
    }
    return render(request, "monitoring/logs.html", context)


def _readable(request: HttpRequest, project: str, name: str) -> Endpoint:
    endpoint = _endpoint(request, project, name)
    if not logs.may_read(request.user, endpoint):
        raise PermissionDenied(NO_LOGS)
    return endpoint


def _chosen(endpoint: Endpoint, instances: list[Instance], name: str) -> Instance | None:
    """The instance of that name; without a name the newest."""
    if not name:
        return instances[0] if instances else None
    return get_object_or_404(endpoint.instances.all(), name=name)


def _wants_json(request: HttpRequest) -> bool:
    asked = {"after", "before", "limit"} & set(request.GET)
    return bool(asked) or request.headers.get("Accept", "").startswith("application/json")


def _place(request: HttpRequest) -> dict[str, Any]:
    """What part of the log is asked for; what is no number is left out."""
    numbers_ = {}
    for key in ("after", "before", "limit"):
        text = request.GET.get(key, "")
        if text.isascii() and text.isdigit() and len(text) < 17:
            numbers_[key] = int(text)
    return {**numbers_, "q": request.GET.get("q", "")[:200]}


def _label(instance: Instance) -> str:
    began = timezone.localtime(instance.started_at)
    return f"{instance.name} · {instance.get_state_display().lower()} · {began.day} {began:%b %H:%M}"


@require_GET
def log_download(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """One instance's whole log as a text file, in one piece: retention bounds it, and its size is known."""
    endpoint = _readable(request, project, name)
    chosen = _chosen(endpoint, list(logs.instances_of(endpoint)[:1]), request.GET.get("instance", ""))
    if chosen is None:
        raise Http404("No instance has written anything yet.")
    text = logs.as_text(chosen, request.GET.get("q", "")[:200])
    answer = HttpResponse(text, content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{chosen.name}.log"'
    return answer


@require_GET
def requests(request: HttpRequest, project: str, name: str) -> HttpResponse:
    """The remembered requests: a page of its own, and what the endpoint's page fetches into its tab."""
    endpoint = _readable(request, project, name)
    asked = {field: request.GET.get(field, "").strip()[:128] for field in ("kept", "status", "request")}
    found = passports.found(endpoint, kept=asked["kept"], status=asked["status"], q=asked["request"])
    page = Paginator(found, passports.PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "endpoint": endpoint,
        "here": endpoint.project,
        "page": page,
        "rows": [_remembered(record) for record in page],
        "asked": asked,
        "filtered": any(asked.values()),
        "kinds": passports.Kept.choices,
        "statuses": StatusClass.choices,
        "rules": f"{remembering.RULES} {remembering.kept_for(settings.REQUEST_RECORD_DAYS)}",
        "before": remembering.BEFORE,
        "sampling": BodySampling.objects.filter(endpoint=endpoint).first(),
        "may_operate": bodies.may_read(request.user, endpoint),
    }
    template = "monitoring/requests.html"
    return render(request, f"{template}#records" if request.htmx else template, context)  # type: ignore[attr-defined]


@require_GET
def request_record(request: HttpRequest, project: str, name: str, record: UUID) -> HttpResponse:
    """One remembered request: where its time went, and what is known of it."""
    endpoint = _readable(request, project, name)
    found = get_object_or_404(passports.found(endpoint).defer(None), pk=record)
    context = {
        "endpoint": endpoint,
        "here": endpoint.project,
        "parts": passports.parts(found),
        "outcome": passports.outcome(found),
        "basis": passports.basis(found),
        "may_read_bodies": bodies.may_read(request.user, endpoint),
        "wrote": bool(found.instance) and endpoint.instances.filter(name=found.instance).exists(),
        **_remembered(found),
    }
    return render(request, "monitoring/request.html", context)


def _remembered(record: RequestRecord) -> dict[str, Any]:
    kinds = [passports.REASONS[kind] for kind in passports.reasons(record)]
    return {"record": record, "tone": passports.tone(record), "kinds": kinds}
