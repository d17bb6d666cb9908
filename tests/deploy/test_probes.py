"""What a cluster asks of the console without a name of its own and without TLS."""

import pytest
from django.conf import LazySettings
from django.test import Client


@pytest.fixture
def in_cluster(settings: LazySettings) -> Client:
    settings.ALLOWED_HOSTS = ["console.example.com", "tir-console.tir"]
    settings.SECURE_SSL_REDIRECT = True
    return Client()


@pytest.mark.django_db
def test_a_kubelet_asks_for_health_by_the_pods_address(in_cluster: Client) -> None:
    assert in_cluster.get("/healthz", headers={"host": "10.244.0.9:8000"}).status_code == 200


@pytest.mark.django_db
def test_a_pod_asks_for_a_models_files_by_the_service(in_cluster: Client) -> None:
    asked = in_cluster.get("/model-files/1/a.gguf", headers={"host": "tir-console.tir"})
    assert asked.status_code in {401, 403, 404}  # who it is comes next; sent on to TLS it would find nobody
    assert in_cluster.get("/", headers={"host": "tir-console.tir"}).status_code == 301
