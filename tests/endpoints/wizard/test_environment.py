"""Variables and secrets: named well, never in conflict with the platform, never a secret in the open."""

from __future__ import annotations

import pytest

from endpoints.models import Endpoint, Secret
from tests.endpoints.wizard.way import Way

pytestmark = pytest.mark.django_db

SECRETS = [
    "hf_abcdefghijklmnop",
    "sk-abcdefghijklmnop",
    "AKIAABCDEFGHIJKLMNOP",
    "ghp_abcdefghijklmnop",
    "-----BEGIN RSA PRIVATE KEY-----",
    "tir_0123abcd_abcdefghijklmnop",
]


@pytest.mark.parametrize("value", SECRETS)
def test_a_value_that_looks_like_a_secret_is_neither_kept_nor_shown(way: Way, value: str) -> None:
    way.to("environment")
    page = way.refused("environment", variable_name=["TOKEN"], variable_value=[value])
    assert "Store it as a secret" in page
    way.client.post(
        way.act("panel"), {"step": "environment", "variable_name": ["TOKEN"], "variable_value": [value]}
    )
    assert value not in page + way.see("environment") + way.see("basics") + str(way.fresh().answers)
    assert 'value="TOKEN"' in way.see("environment")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1ST", "digits and underscores"),
        ("A B", "digits and underscores"),
        ("A=B", "digits and underscores"),
        ("TIR_REGION", "reserved"),
        ("PATH", "reserved"),
        ("ld_preload", "reserved"),
        ("LD_PRELOAD", "reserved"),
        ("PYTHONPATH", "reserved"),
        ("MODEL_PATH", "set by the platform"),
        ("LOG_LEVEL", "its own field"),
        ("CUDA_VISIBLE_DEVICES", "its own GPUs and no others"),
        ("NVIDIA_VISIBLE_DEVICES", "its own GPUs and no others"),
        ("TRANSFORMERS_CACHE", "keeps no cache"),
    ],
)
def test_names_that_cant_be_are_refused_at_their_row(way: Way, name: str, said: str) -> None:
    way.to("environment")
    page = way.refused("environment", variable_name=["OK", name], variable_value=["1", "2"])
    assert said in page
    assert 'id="variable-1-error"' in page
    assert 'id="variable-0-error"' not in page


def test_one_name_may_be_used_once_also_between_variables_and_secrets(way: Way) -> None:
    way.to("environment")
    page = way.refused(
        "environment", variable_name=["A", "A"], variable_value=["1", "2"], secret_name=["A"], secret_ref=["x"]
    )
    assert page.count("used twice") >= 2
    assert "no such secret" in page


def test_rows_are_added_and_removed_without_scripts(way: Way) -> None:
    way.to("environment")
    rows = {"variable_name": ["A", "B", ""], "variable_value": ["1", "2", ""]}
    added = way.post("environment", go="add-variables", **rows).content.decode()
    assert added.count('name="variable_name"') == 3
    left = way.post("environment", go="drop-variables:0", **rows).content.decode()
    assert 'value="B"' in left
    assert 'value="A"' not in left
    assert way.fresh().answers["typed"]["environment"]["variables"] == [["B", "2"]]


def test_a_secret_is_referred_to_by_name_only(way: Way) -> None:
    way.to("environment")
    stored = {"step": "environment", "name": "db-password", "value": "correct horse"}
    way.client.post(way.act("draft_secret"), stored)
    assert Secret.objects.get().reveal() == "correct horse"
    way.passes("environment", variable_name=["MODE"], variable_value=["fast"],
               secret_name=["DB_PASSWORD"], secret_ref=["db-password"])  # fmt: skip
    assert "DB_PASSWORD from secret" in way.see("summary")
    way.passes("summary", go="deploy", cost="yes")
    spec = Endpoint.objects.get().revisions.get().spec
    assert spec["environment"]["secrets"] == {"DB_PASSWORD": "db-password"}
    assert spec["environment"]["variables"] == {"MODE": "fast"}
    assert "correct horse" not in str(spec)


def test_too_long_a_value_and_too_many_rows_are_refused(way: Way) -> None:
    way.to("environment")
    assert "at most 4,096" in way.refused("environment", variable_name=["A"], variable_value=["x" * 4097])
    names = [f"V{number}" for number in range(101)]
    assert "At most 100 rows" in way.refused("environment", variable_name=names, variable_value=names)


def test_a_nul_never_reaches_the_database(way: Way) -> None:
    way.to("environment")
    way.passes("environment", variable_name=["A"], variable_value=["x\0y"])
    assert way.fresh().answers["environment"]["variables"] == [["A", "xy"]]
