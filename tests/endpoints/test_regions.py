"""Regions: added and changed by staff, judged before they are kept, asked for real, kept while they are used."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEntry
from endpoints import regions
from endpoints.capacity import Capacity
from endpoints.models import Endpoint, Region
from endpoints.regions import replace_runtime
from endpoints.runtimes.base import Unavailable
from tests import make

pytestmark = pytest.mark.django_db
ROOM = Capacity(8000, 6000, 1 << 34, 1 << 33, 2, 1, "2 T4", walls="far: an instance can reach the host")


class Place:
    """A runtime that only says what it has, or can't be reached."""

    def __init__(self, answer: Capacity | str) -> None:
        self.answer = answer

    def capacity(self) -> Capacity:
        if isinstance(self.answer, str):
            raise Unavailable(self.answer)
        return self.answer


@pytest.fixture
def client() -> Client:
    browser = Client()
    browser.force_login(make.user("staff", is_staff=True))
    return browser


@pytest.fixture
def put() -> Iterator[Any]:
    """Put a place behind a region's name."""
    names: list[str] = []

    def put(slug: str, answer: Capacity | str) -> None:
        names.append(slug)
        replace_runtime(slug, Place(answer))  # type: ignore[arg-type]

    yield put
    for name in names:
        replace_runtime(name, None)


def measure(slug: str) -> None:
    """Ask the region as a worker does."""
    regions.measure(Region.objects.get(slug=slug), at=timezone.now())


def seen(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


class Fields(HTMLParser):
    """What a browser would post of a page's fields: by name, all values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.filled: dict[str, list[str]] = {}
        self.select = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "select":
            self.select = given["name"]
        picked = tag == "option" and "selected" in given
        typed = tag == "input" and "name" in given and (given.get("type") != "checkbox" or "checked" in given)
        if picked or typed:
            value = given.get("value", "on" if given.get("type") == "checkbox" else "")
            self.filled.setdefault(given.get("name", self.select), []).append(value)


def test_without_a_region_the_page_says_what_to_do(client: Client) -> None:
    Region.objects.all().delete()
    assert "No regions yet" in seen(client, "/regions/")


def test_what_a_place_said_and_when_stands_on_its_page(client: Client, put: Any) -> None:
    make.region("far", name="Far away", capacity={}, capacity_at=None)
    put("far", ROOM)
    assert "Not asked yet" in seen(client, "/regions/")
    client.post("/regions/far/test/")
    assert "Being asked now" in seen(client, "/regions/far/state/")
    measure("far")
    page = seen(client, "/regions/far/state/")
    assert "Being asked now" not in page
    assert "6 of 8" in page
    assert "1 of 2" in page
    assert "far: an instance can reach the host" in page
    assert "8 GiB of 16 GiB" in page.replace(".0 ", " ").replace(".00 ", " ")


def test_a_place_that_cant_be_reached_says_why_and_keeps_what_it_said(client: Client, put: Any) -> None:
    make.region("far")
    put("far", ROOM)
    measure("far")
    put("far", "connection refused by 10.0.0.5")
    measure("far")
    page = seen(client, "/regions/far/")
    assert "Can't be reached" in page
    assert "connection refused by 10.0.0.5" in page
    assert "6 of 8" in page
    put("far", ROOM)
    measure("far")
    assert "connection refused" not in seen(client, "/regions/far/")


def test_a_region_of_processes_is_added_changed_and_taken_out_of_the_choice(client: Client) -> None:
    made = client.post("/regions/new/", {"name": "Here", "slug": "here", "runtime": "process", "enabled": "on"})
    assert made.headers["Location"] == "/regions/here/"
    client.post("/regions/here/", {"name": "Over here", "slug": "elsewhere", "runtime": "process"})
    region = Region.objects.get(slug="here")
    assert (region.name, region.enabled) == ("Over here", False)
    assert "Not offered" in seen(client, "/regions/")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slug": "local"}, "already exists"),
        ({"slug": "Not a slug"}, "valid"),
        ({"name": ""}, "required"),
        ({"runtime": "moon"}, "valid choice"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_kept(client: Client, given: dict[str, str], said: str) -> None:
    make.region()
    answer = client.post("/regions/new/", {"name": "Here", "slug": "here", "runtime": "process"} | given)
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert Region.objects.count() == 1


def test_a_region_in_use_is_neither_deleted_nor_made_another_kind_of_place(client: Client) -> None:
    endpoint = make.endpoint(name="busy")
    said = client.post("/regions/local/delete/", {"confirm": "local"}, follow=True).content.decode()
    assert "is used by busy" in said
    posted = client.post("/regions/local/", {"name": "This", "runtime": "docker"}).content.decode()
    assert "another kind of place while busy run here" in posted
    endpoint.delete_endpoint(by=make.user())
    endpoint.deleted_at = endpoint.created_at
    endpoint.save(update_fields=["deleted_at"])
    assert (
        "their costs name it"
        in client.post("/regions/local/delete/", {"confirm": "local"}, follow=True).content.decode()
    )
    assert Region.objects.filter(slug="local", runtime="process").exists()


def test_a_region_that_nobody_used_can_be_deleted(client: Client) -> None:
    make.region("unused")
    client.post("/regions/unused/delete/", {"confirm": "unused"})
    assert not Region.objects.filter(slug="unused").exists()


@pytest.mark.parametrize("typed", ["", "Unused", "other"])
def test_a_region_is_deleted_only_where_its_name_was_typed(client: Client, typed: str) -> None:
    make.region("unused")
    answer = client.post("/regions/unused/delete/", {"confirm": typed})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert 'id="delete-region-typed_error"' in page
    assert 'action="/regions/unused/delete/#delete-region"' in page, "the dialog stays in sight without JavaScript"
    assert '<form method="post" action="/regions/unused/"' in page, "saving still saves"
    assert Region.objects.filter(slug="unused").exists()
    assert acts() == []


BASE = {"name": "Far", "slug": "far", "enabled": "on"}
HOST = {
    "host_name": ["one", ""],
    "host_url": ["tcp://10.0.0.5:2376", ""],
    "host_ca": ["/etc/tir/ca.pem", ""],
    "host_cert": ["/etc/tir/cert.pem", ""],
    "host_key": ["/etc/tir/key.pem", ""],
    "host_address": ["10.0.0.5", ""],
    "host_models": ["/srv/models", ""],
    "host_network": ["inference", ""],
    "host_gpus": ["GPU-1, GPU-2", ""],
}


def test_docker_hosts_with_their_tls_are_kept_as_the_runtime_reads_them(client: Client) -> None:
    images = {"image_pytorch:2.x": "registry.example.com/tir/pytorch:2.7"}
    client.post("/regions/new/", BASE | HOST | images | {"runtime": "docker"})
    region = Region.objects.get(slug="far")
    assert region.config["images"] == {"pytorch:2.x": "registry.example.com/tir/pytorch:2.7"}
    [host] = region.config["hosts"]
    assert (host["url"], host["key"], host["models"]) == ("tcp://10.0.0.5:2376", "/etc/tir/key.pem", "/srv/models")
    assert (host["network"], host["gpus"]) == ("inference", ["GPU-1", "GPU-2"])
    page = seen(client, "/regions/far/")
    for shown in (
        "GPU-1, GPU-2",
        "inference",
        "tcp://10.0.0.5:2376",
        "/etc/tir/key.pem",
        "registry.example.com/tir/pytorch:2.7",
    ):
        assert f'value="{shown}"' in page


def test_a_host_is_added_without_scripts_and_without_losing_the_others(client: Client) -> None:
    page = client.post("/regions/new/", BASE | HOST | {"runtime": "docker", "go": "add-host"}).content.decode()
    assert page.count('name="host_url"') == 2
    assert 'value="tcp://10.0.0.5:2376"' in page
    assert not Region.objects.filter(slug="far").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"host_url": ["http://10.0.0.5"]}, "begins with unix:// or tcp://"),
        ({"host_ca": [""]}, "TLS takes three files"),
        ({"host_models": [""]}, "folder of models"),
        ({"host_address": ["example.com"]}, "IP address"),
    ],
)
def test_a_host_that_cant_be_is_refused_in_the_runtimes_words(
    client: Client, given: dict[str, list[str]], said: str
) -> None:
    answer = client.post("/regions/new/", BASE | HOST | given | {"runtime": "docker"})
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not Region.objects.filter(slug="far").exists()


CLUSTER = {
    "runtime": "kubernetes",
    "kubeconfig": "/etc/tir/kubeconfig",
    "namespace": "inference",
    "cache": "models",
    "console_url": "http://10.0.0.5:8000",
}
POOLS = {"selector_g4dn.xlarge": "gpu=t4, zone=a", "tolerations_g4dn.xlarge": "nvidia.com/gpu:NoSchedule, own=x"}


def test_a_cluster_with_its_nodes_is_kept_as_the_runtime_reads_it_and_shown_as_typed(client: Client) -> None:
    make.instance_type("g4dn.xlarge", family="gpu", gpu="T4", gpu_count=1)
    client.post("/regions/new/", BASE | CLUSTER | POOLS)
    config = Region.objects.get(slug="far").config
    assert (config["kubeconfig"], config["namespace"], config["cache"]) == (
        "/etc/tir/kubeconfig",
        "inference",
        "models",
    )
    pool = config["instance_types"]["g4dn.xlarge"]
    assert pool["node_selector"] == {"gpu": "t4", "zone": "a"}
    assert pool["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "own", "operator": "Equal", "value": "x"},
    ]
    page = seen(client, "/regions/far/")
    for shown in POOLS.values():
        assert f'value="{shown}"' in page


@pytest.mark.parametrize("name", ["namespace", "installation"])
def test_a_cluster_in_use_is_looked_for_where_it_is(client: Client, name: str) -> None:
    client.post("/regions/new/", BASE | CLUSTER)
    make.endpoint(name="busy")
    Endpoint.objects.update(region=Region.objects.get(slug="far"))
    kept = Region.objects.get(slug="far").config
    page = client.post("/regions/far/", BASE | CLUSTER | {name: "elsewhere"}).content.decode()
    assert "while busy run here: what runs for them would be left behind" in page
    assert Region.objects.get(slug="far").config == kept
    renewed = client.post("/regions/far/", BASE | CLUSTER | {"kubeconfig": "/etc/tir/renewed"})
    assert renewed.status_code == 302, "its account may change: it is the same place"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"selector_default": "gpu"}, "“gpu” is no label of a node"),
        ({"tolerations_default": "a=b:Never"}, "“a=b:Never” is no taint"),
        ({"namespace": "Not A Namespace"}, "namespace"),
        ({"console_url": ""}, "address is http://127.0.0.1:8000, which leads a pod to itself"),
        ({"console_url": "http://localhost:8000"}, "http://localhost:8000 leads a pod to itself"),
        ({"console_url": "http://[::1]"}, "http://[::1] leads a pod to itself"),
    ],
)
def test_a_cluster_that_cant_be_is_refused(client: Client, given: dict[str, str], said: str) -> None:
    answer = client.post("/regions/new/", BASE | CLUSTER | given)
    assert answer.status_code == 422
    assert said in answer.content.decode()


WHOLE: dict[str, dict[str, Any]] = {
    "docker": {
        "hosts": [{"name": "a", "url": "unix:///run/a.sock", "network": "n", "gpus": 2}, {"name": "b"}],
        "images": {"llama.cpp": "x:1"},
        "allow_root": True,
    },
    "kubernetes": {
        "kubeconfig": "/k",
        "namespace": "inference",
        "egress": ["10.0.0.0/8", "dns"],
        "console_url": "http://tir-console.tir",
        "pull_secrets": ["registry"],
        "gpu_resource": "nvidia.com/mig",
        "images": {"pytorch:1.x": "y:1"},
        "instance_types": {
            "default": {"node_selector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}
        },
    },
}


def test_a_region_of_this_machines_engine_can_be_sealed_and_no_other(client: Client) -> None:
    sealed = {"runtime": "docker", "sealed": "on"}
    answer = client.post("/regions/new/", BASE | HOST | sealed)
    assert answer.status_code == 422
    assert "Only an engine of this machine" in answer.content.decode()
    assert client.post("/regions/new/", BASE | sealed).status_code == 302
    assert Region.objects.get(slug="far").config["sealed"] is True
    assert "sealed" in Fields(seen(client, "/regions/far/")).filled


@pytest.mark.parametrize("kind", WHOLE)
def test_saving_a_page_as_it_is_changes_no_setting(client: Client, kind: str) -> None:
    make.region("far", runtime=kind, config=WHOLE[kind])
    answer = client.post("/regions/far/", Fields(seen(client, "/regions/far/")).filled)
    assert answer.status_code == 302
    assert Region.objects.get(slug="far").config == WHOLE[kind]


# ── who did what ────────────────────────────────────────────────────────────────────────────────────
def acts() -> list[tuple[str, str, str]]:
    """What, by whom and in which words, the first first."""
    rows = AuditEntry.objects.filter(project=None).order_by("pk")
    return [(entry.what, entry.who_text, entry.message) for entry in rows]


def test_every_act_on_a_region_is_audited_without_values(client: Client) -> None:
    client.post("/regions/new/", BASE | HOST | {"runtime": "docker"})
    moved = HOST | {"host_address": ["10.0.0.6", ""], "host_key": ["/etc/tir/new-key.pem", ""]}
    client.post("/regions/far/", {"name": "Far off", "runtime": "docker"} | moved)
    client.post("/regions/far/", {"name": "Far off", "runtime": "docker", "enabled": "on"} | moved)
    client.post("/regions/far/", {"name": "Far off", "runtime": "docker", "enabled": "on"} | moved)
    client.post("/regions/far/delete/", {"confirm": "far"})
    who = str(make.user("staff"))
    assert acts() == [
        ("region.created", who, "Added the region “far”: Docker."),
        ("region.disabled", who, "No longer offers the region “far” for new endpoints."),
        ("region.credentials_replaced", who, "Replaced credentials of the region “far”: key of host one."),
        ("region.changed", who, "Changed the region “far”: its name to “Far off”, host one (address)."),
        ("region.enabled", who, "Offers the region “far” for new endpoints again."),
        ("region.deleted", who, "Deleted the region “far”."),
    ]
    assert "Deleted the region “far”" in seen(client, "/regions/")


def test_a_clusters_account_and_nodes_are_told_apart_in_the_audit(client: Client) -> None:
    client.post("/regions/new/", BASE | CLUSTER)
    other = CLUSTER | {"kubeconfig": "/etc/tir/other", "namespace": "apart", "selector_default": "gpu=t4"}
    client.post("/regions/far/", BASE | other)
    assert [message for _, _, message in acts()[1:]] == [
        "Replaced credentials of the region “far”: kubeconfig.",
        "Changed the region “far”: instance types, namespace.",
    ]
    page = seen(client, "/regions/far/")
    assert "Replaced credentials of the region" in page
    make.region("near")
    assert "Replaced credentials" not in seen(client, "/regions/near/")


def test_an_act_that_is_refused_is_no_act(client: Client) -> None:
    make.endpoint(name="busy")
    client.post("/regions/local/delete/", {"confirm": "local"})
    client.post("/regions/local/", {"name": "This", "runtime": "docker"})
    assert acts() == []
