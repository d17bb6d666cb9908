"""What a month would cost, before anything runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

HOURS_A_MONTH = 730
DAYS_A_MONTH = 30


@dataclass(frozen=True)
class Estimate:
    """A month of `instances` running throughout, and `requests` answered."""

    compute: Decimal
    requests: Decimal
    per_hour: Decimal
    instances: int

    @property
    def total(self) -> Decimal:
        return self.compute + self.requests


def month(*, instances: int, per_hour: Decimal, requests: int = 0, per_request: Decimal = Decimal(0)) -> Estimate:
    """(requests a month × price per request) + (active hours × hourly rate), with 730 hours a month."""
    return Estimate(
        compute=instances * per_hour * HOURS_A_MONTH,
        requests=requests * per_request,
        per_hour=instances * per_hour,
        instances=instances,
    )
