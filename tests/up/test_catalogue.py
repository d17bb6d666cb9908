"""What a new installation offers: the provider's table, once."""

from decimal import Decimal

import pytest
from django.core.management import call_command
from django.utils import timezone

from accounts.models import Project, User
from accounts.roles import Role
from billing.models import Price, Unit
from endpoints.models import InstanceType, ModelVersion, Region, RegisteredModel
from endpoints.spec import GIB
from tir_console.up import catalogue, demo_model

pytestmark = pytest.mark.django_db

# type: vCPUs, GiB, GPU, GiB of the GPU, compute capability, rupees an hour
TABLE = {
    "c6i.large": (2, 4, "", 0, None, "3.2"),
    "c6i.xlarge": (4, 8, "", 0, None, "6.4"),
    "c6i.2xlarge": (8, 16, "", 0, None, "12.8"),
    "c6i.4xlarge": (16, 32, "", 0, None, "25.6"),
    "g4dn.xlarge": (4, 16, "NVIDIA T4", 16, "7.5", "15.8"),
    "g4dn.2xlarge": (8, 32, "NVIDIA T4", 16, "7.5", "28.4"),
    "p3.2xlarge": (8, 61, "NVIDIA V100", 16, "7.0", "52.7"),
    "p4d.xlarge": (8, 96, "NVIDIA A100", 40, "8.0", "89.3"),
}


@pytest.fixture
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "model_file", lambda: None)


def test_the_eight_types_are_the_providers_in_its_order() -> None:
    call_command("load_catalogue")
    kinds = {kind.slug: kind for kind in InstanceType.objects.all()}
    assert list(kinds) == list(TABLE)
    for slug, (vcpus, memory, gpu, gpu_memory, capability, _) in TABLE.items():
        kind = kinds[slug]
        assert (kind.vcpus, kind.memory_bytes, kind.gpu) == (vcpus, memory * GIB, gpu), slug
        assert (kind.gpu_memory_bytes, kind.gpu_count) == (gpu_memory * GIB, int(bool(gpu))), slug
        assert kind.compute_capability == (Decimal(capability) if capability else None), slug
        assert kind.best_for
        assert kind.family == ("gpu" if gpu else "cpu")


def test_prices_are_the_providers_in_rupees() -> None:
    call_command("load_catalogue")
    prices = Price.objects.at(timezone.now())
    hours = {price.instance_type.slug: price.amount for price in prices if price.instance_type}
    assert hours == {slug: Decimal(row[-1]) for slug, row in TABLE.items()}
    (request,) = [price for price in prices if price.unit == Unit.REQUEST]
    assert request.amount == Decimal("0.001")
    assert {price.currency for price in prices} == {"INR"}


@pytest.mark.usefixtures("_no_model")
def test_loading_again_changes_nothing_that_somebody_changed() -> None:
    call_command("load_catalogue", demo=True)
    Price.objects.filter(instance_type__slug="c6i.large").update(amount=Decimal("4"))
    InstanceType.objects.filter(slug="c6i.large").update(enabled=False)
    Region.objects.filter(slug="local").update(name="Basement")
    before = [
        list(model.objects.order_by("pk").values()) for model in (InstanceType, Price, Region, Project, User)
    ]
    call_command("load_catalogue", demo=True)
    after = [list(model.objects.order_by("pk").values()) for model in (InstanceType, Price, Region, Project, User)]
    assert after == before


@pytest.mark.usefixtures("_no_model")
def test_the_demo_project_has_an_owner_who_gets_in_by_link_only() -> None:
    owner = catalogue.load_demo()
    assert (owner.email, owner.has_usable_password()) == ("demo@localhost", False)
    project = Project.objects.get(slug="demo")
    assert (project.name, project.role_of(owner)) == ("Demo", Role.OWNER)
    assert catalogue.login_link(owner).startswith("/login/link/")


def test_without_demo_there_is_no_account_to_break_into() -> None:
    call_command("load_catalogue")
    assert not User.objects.exists()
    assert not Project.objects.exists()


@pytest.mark.model
def test_the_demo_model_is_shared_described_and_registered_once() -> None:
    catalogue.load_demo()
    catalogue.load_demo()
    model = RegisteredModel.objects.get(name="smollm2-135m-instruct")
    version = ModelVersion.objects.get(model=model)
    assert (model.project, version.number) == (None, 1)
    assert version.size_bytes == version.files[0]["size"] > 90_000_000
    assert version.facts["architecture"] == "llama"
