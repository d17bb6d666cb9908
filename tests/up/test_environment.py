"""What `up` decides for a machine it has never seen."""

import pytest

from tir_console.up.environment import overcommit


@pytest.mark.parametrize(("cores", "promised"), [(1, "6"), (2, "3"), (4, "1.5"), (6, "1"), (64, "1")])
def test_a_laptop_runs_three_instances_and_a_server_promises_what_it_has(cores: int, promised: str) -> None:
    assert overcommit(cores) == promised
