"""The ways to run the console in production: valid, restricted, complete, and the same commands everywhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.endpoints.runtimes.kubernetes.test_manifests import restricted

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "deploy" / "kubernetes"
FILES = sorted(path for path in CLUSTER.glob("*/*.yaml") if path.name != "kustomization.yaml")
PARTS = {
    "console": "daphne -b {host} -p 8000 -v 0 --no-server-name tir_console.asgi:application",
    "gateway": "python -m gateway",
    "control": "python -m tir_console.up.work control 8",
    "slow": "python -m tir_console.up.work slow 4",
    "beat": "celery -A tir_console beat --schedule /tmp/beat --scheduler tir_console.alive:Scheduler",
    "migrate": "sh -c python manage.py migrate --no-input && python manage.py load_catalogue",
}


def documents(*files: Path) -> list[dict[str, Any]]:
    return [one for path in files for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in documents(*FILES):
        if one["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def variables(text: str) -> set[str]:
    return set(re.findall(r"^([A-Z][A-Z_]+)=", text, re.MULTILINE))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_object_is_valid(path: Path) -> None:
    for one in documents(path):
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_every_part_passes_the_restricted_level_and_has_its_limits() -> None:
    for name, spec in templates():
        assert restricted(spec) == [], name
        for container in spec["containers"]:
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"]["cpu"], name
            assert container["imagePullPolicy"] == "IfNotPresent", name


def test_what_stands_still_is_started_again() -> None:
    for name, spec in templates():
        (container,) = spec["containers"]
        assert ("livenessProbe" in container) == (name != "tir-migrate"), name
        if "exec" in container.get("livenessProbe", {}):
            given = {one["name"]: one["value"] for one in container["env"]}
            assert f"'{given['ALIVE_FILE']}'" in container["livenessProbe"]["exec"]["command"][-1], name


@pytest.mark.parametrize("folder", ["console", "region"])
def test_a_kustomization_names_every_file_of_its_folder(folder: str) -> None:
    (named,) = documents(CLUSTER / folder / "kustomization.yaml")
    assert sorted(named["resources"]) == [path.name for path in FILES if path.parent.name == folder]


def test_what_parts_refer_to_is_there() -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in documents(*FILES)}
    (named,) = documents(CLUSTER / "console" / "kustomization.yaml")
    there |= {("ConfigMap", one["name"]) for one in named["configMapGenerator"]}
    there |= {("Secret", one["name"]) for one in named["secretGenerator"]}
    for name, spec in templates():
        assert ("ServiceAccount", spec["serviceAccountName"]) in there, name
        for volume in spec["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in there, name
        for source in spec["containers"][0]["envFrom"]:
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            assert (kind, next(iter(source.values()))["name"]) in there, name
    for one in documents(CLUSTER / "console" / "ingress.yaml"):
        for rule in one["spec"]["rules"]:
            backend = rule["http"]["paths"][0]["backend"]["service"]
            assert ("Service", backend["name"]) in there


def test_only_the_workers_hold_an_account_and_their_rights_are_bound_to_it() -> None:
    holding = {
        spec["serviceAccountName"] for _, spec in templates() if spec.get("automountServiceAccountToken", True)
    }
    bound = {
        subject["name"]
        for one in documents(*FILES)
        if one["kind"].endswith("Binding")
        for subject in one["subjects"]
        if subject["namespace"] == "tir"
    }
    assert holding == bound == {"tir-workers"}


def test_cluster_and_compose_start_the_same_parts() -> None:
    in_cluster = {
        name.removeprefix("tir-"): " ".join(spec["containers"][0]["command"]) for name, spec in templates()
    }
    assert in_cluster == {name: command.format(host="0.0.0.0") for name, command in PARTS.items()}
    (compose,) = documents(ROOT / "deploy" / "compose.yaml")
    on_one = {name: " ".join(one["command"]) for name, one in compose["services"].items() if name in PARTS}
    assert on_one == {name: command.format(host="127.0.0.1") for name, command in PARTS.items()}
    for name in PARTS:
        one = compose["services"][name]
        assert (one["user"], one["read_only"], one["cap_drop"]) == ("65532:65532", True, ["ALL"])


def test_every_variable_is_one_of_the_readme_s() -> None:
    known = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    (compose,) = documents(ROOT / "deploy" / "compose.yaml")
    used = {name for part in PARTS for name in compose["services"][part]["environment"]}
    for name in ("settings.env", "secret.example.env"):
        used |= variables((CLUSTER / "console" / name).read_text(encoding="utf-8"))
    for _, spec in templates():
        used |= {one["name"] for one in spec["containers"][0].get("env", ())}
    assert not used - known


def test_the_example_has_every_variable_that_compose_insists_on() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    example = variables((ROOT / "deploy" / "compose.example.env").read_text(encoding="utf-8"))
    assert set(re.findall(r"\$\{([A-Z_]+):\?\}", text)) <= example
