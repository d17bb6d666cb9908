"""What a new installation can offer at once: the provider's instance types with prices, one region, a demo.

Loading it again changes nothing that somebody has changed since.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction

from accounts import links
from accounts.models import Membership, Project, User
from accounts.roles import Role
from billing.models import Price, Unit
from endpoints.models import InstanceType, Region
from endpoints.models.catalogue import Family, RuntimeKind
from endpoints.spec import GIB
from tir_console.up import demo_model

DEMO_EMAIL = "demo@localhost"
DEMO_PROJECT = "demo"
REQUEST_PRICE = Decimal("0.001")


@dataclass(frozen=True)
class Machine:
    """One row of the provider's table; memory in GiB, price in rupees an hour."""

    slug: str
    vcpus: int
    memory: int
    price: str
    best_for: str
    network: str = ""
    gpu: str = ""
    gpu_memory: int = 0
    capability: str | None = None

    def columns(self, position: int) -> dict[str, object]:
        return {
            "family": Family.GPU if self.gpu else Family.CPU,
            "vcpus": self.vcpus,
            "memory_bytes": self.memory * GIB,
            "network": self.network,
            "gpu": self.gpu,
            "gpu_count": 1 if self.gpu else 0,
            "gpu_memory_bytes": self.gpu_memory * GIB,
            "compute_capability": Decimal(self.capability) if self.capability else None,
            "best_for": self.best_for,
            "position": position,
        }


_T4, _V100, _A100 = ("NVIDIA T4", 16, "7.5"), ("NVIDIA V100", 16, "7.0"), ("NVIDIA A100", 40, "8.0")
_FAST = "Up to 12.5 Gbps"
MACHINES = (
    Machine("c6i.large", 2, 4, "3.2", "Light inference, testing", _FAST),
    Machine("c6i.xlarge", 4, 8, "6.4", "Medium throughput models", _FAST),
    Machine("c6i.2xlarge", 8, 16, "12.8", "High-throughput CPU inference", _FAST),
    Machine("c6i.4xlarge", 16, 32, "25.6", "Large models, batch processing", "25 Gbps"),
    Machine("g4dn.xlarge", 4, 16, "15.8", "Small to medium models", "", *_T4),
    Machine("g4dn.2xlarge", 8, 32, "28.4", "Medium models, higher throughput", "", *_T4),
    Machine("p3.2xlarge", 8, 61, "52.7", "Large models, training", "", *_V100),
    Machine("p4d.xlarge", 8, 96, "89.3", "Largest models, high performance", "", *_A100),
)


@transaction.atomic
def load() -> None:
    """Add the types, prices and region that are missing."""
    for position, machine in enumerate(MACHINES):
        kind, _ = InstanceType.objects.get_or_create(slug=machine.slug, defaults=machine.columns(position))
        if not kind.prices.exists():
            Price.objects.create(unit=Unit.INSTANCE_HOUR, instance_type=kind, amount=Decimal(machine.price))
    if not Price.objects.filter(unit=Unit.REQUEST).exists():
        Price.objects.create(unit=Unit.REQUEST, amount=REQUEST_PRICE)
    Region.objects.get_or_create(slug="local", defaults={"name": "This machine", "runtime": RuntimeKind.PROCESS})


@transaction.atomic
def load_demo() -> User:
    """Add the demo project and model, and answer the project's owner.

    Whoever runs `up` runs the installation, so the account is its administrator too. It has no password and
    gets in by the link that `up` prints.
    """
    owner = User.objects.filter(email=DEMO_EMAIL).first()
    if owner is None:
        owner = User.objects.create_superuser(DEMO_EMAIL, None, name="Demo")
    project, new = Project.objects.get_or_create(slug=DEMO_PROJECT, defaults={"name": "Demo"})
    if new:
        Membership.objects.create(project=project, user=owner, role=Role.OWNER)
    demo_model.register()
    return owner


def login_link(user: User) -> str:
    """The path that logs `user` in, once."""
    return f"/login/link/{links.make(user)}/"
