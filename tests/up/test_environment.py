"""What `up` decides for a machine it has never seen."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from tir_console import environment
from tir_console.up.environment import overcommit


@pytest.mark.parametrize(("cores", "promised"), [(1, "6"), (2, "3"), (4, "1.5"), (6, "1"), (64, "1")])
def test_a_laptop_runs_three_instances_and_a_server_promises_what_it_has(cores: int, promised: str) -> None:
    assert overcommit(cores) == promised


def test_a_time_zone_that_is_none_is_named_with_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_TIME_ZONE", "Mars/Olympus")
    with pytest.raises(
        ImproperlyConfigured, match=r"BILLING_TIME_ZONE must be a time zone's name, such as .*Mars"
    ):
        environment.time_zone("BILLING_TIME_ZONE", "UTC")
    monkeypatch.setenv("BILLING_TIME_ZONE", "Europe/Berlin")
    assert environment.time_zone("BILLING_TIME_ZONE", "UTC") == "Europe/Berlin"
