"""What a cluster is asked to have: valid, restricted, and without a secret where it can be read."""

import base64
import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from endpoints.runtimes.base import Command, Image, Rejected, Workload
from endpoints.runtimes.kubernetes import labels, manifests, podspec
from endpoints.runtimes.kubernetes.settings import read

NEWEST = kubernetes_validate.latest_version()
FETCH = {
    "kind": "s3",
    "bucket": "models",
    "path": "",
    "revision": "1",
    "files": ["a/tiny.gguf", "b"],
    "size": 1 << 30,
}
LLAMA = Command(
    "llama.cpp", "", "demo", image=Image("tir-serving-llama.cpp:1"), fetch=FETCH, credential="s3cr3t-key"
)
SERVED = Workload(
    "endpoint-7",
    3,
    2,
    LLAMA,
    cpu_millis=4000,
    memory_bytes=16 << 30,
    gpus=2,
    env={"MODE": "fast"},
    secrets={"HF_TOKEN": "hf_abcdef"},
    machine="gpu-large",
)
CONFIG: dict[str, Any] = {
    "namespace": "models",
    "ingress": ["tir", "10.0.0.0/8"],
    "egress": ["0.0.0.0/0"],
    "pull_secrets": ["ours"],
    "instance_types": {
        "gpu-large": {
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        }
    },
}


def everything(wanted: Workload = SERVED, **config: Any) -> list[dict[str, Any]]:
    settings = read({**CONFIG, **config})
    return [*manifests.companions(settings, wanted, "uid-1"), manifests.deployment(settings, wanted)]


def the(kind: str, wanted: Workload = SERVED, **config: Any) -> dict[str, Any]:
    return next(one for one in everything(wanted, **config) if one["kind"] == kind)


def pod(wanted: Workload = SERVED, **config: Any) -> dict[str, Any]:
    spec: dict[str, Any] = the("Deployment", wanted, **config)["spec"]["template"]["spec"]
    return spec


CUSTOM = replace(
    SERVED, command=Command("custom", "", "x", image=Image("ghcr.io/a/b:1", ("serve",), 9000, "/up", "u", "p"))
)


@pytest.mark.parametrize("wanted", [SERVED, CUSTOM], ids=["llama.cpp", "custom"])
@pytest.mark.parametrize("config", [{}, {"cache": "models"}, {"storage": "200Gi", "egress": None}], ids=str)
def test_every_object_is_valid_for_the_newest_version(wanted: Workload, config: dict[str, Any]) -> None:
    for one in everything(wanted, **config):
        kubernetes_validate.validate(one, NEWEST, strict=True)


def test_the_pods_pass_the_restricted_level() -> None:
    for spec in (pod(), pod(CUSTOM), pod(cache="models")):
        assert restricted(spec) == []
        assert spec["automountServiceAccountToken"] is False


def restricted(spec: dict[str, Any]) -> list[str]:
    """What the pod-security level `restricted` finds, from its documentation."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    whole = spec["securityContext"]
    if not whole.get("runAsNonRoot") or whole.get("runAsUser") == 0:
        found.append("runAsNonRoot")
    if whole.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        found.append("seccompProfile")
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [one["name"] for one in spec["volumes"] if set(one) - {"name"} - allowed]
    for one in (*spec["containers"], *spec.get("initContainers", ())):
        own = one["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            found.append(f"{one['name']}: privileges")
        if own["capabilities"].get("drop") != ["ALL"] or own["capabilities"].get("add"):
            found.append(f"{one['name']}: capabilities")
        if not own.get("readOnlyRootFilesystem"):
            found.append(f"{one['name']}: writes to its image")
        found += [f"{one['name']}: a host port" for port in one.get("ports", ()) if port.get("hostPort")]
    return found


def test_no_secret_stands_where_it_can_be_read() -> None:
    wanted = replace(
        SERVED, command=replace(LLAMA, image=Image("ghcr.io/a/b:1", username="u", password="pull-pass"))
    )
    for one in everything(wanted):
        text = json.dumps(one)
        for secret in ("hf_abcdef", "s3cr3t-key", "pull-pass"):
            assert secret not in text
            assert (base64.b64encode(secret.encode()).decode() in text) <= (one["kind"] == "Secret")
    assert "s3cr3t-key" not in repr(wanted)


def test_a_models_own_packages_are_installed_by_its_instances() -> None:
    own = replace(SERVED, command=replace(LLAMA, engine="python", requirements="scikit-learn\n"))
    for wanted, installs in ((own, True), (replace(own, command=replace(LLAMA, engine="python")), None)):
        found = {one["name"]: one.get("value") for one in pod(wanted)["containers"][0]["env"]}
        assert json.loads(found["TIR_CONFIG"]).get("packages") is installs


def test_a_model_finds_its_secrets_by_their_names() -> None:
    variables = {one["name"]: one for one in pod()["containers"][0]["env"]}
    assert variables["TIR_SECRETS"]["value"] == "HF_TOKEN", "tir_secrets.get_secret knows no other"
    assert variables["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "HF_TOKEN"


def test_variables_and_words_of_a_command_arrive_as_they_were_written() -> None:
    image = Image("ghcr.io/a/b:1", command=("--key=$(HF_TOKEN)", "$HOME"))
    wanted = replace(SERVED, command=replace(LLAMA, engine="custom", image=image), env={"PRICE": "5$$, $(PORT)"})
    main = pod(wanted)["containers"][0]
    found = {one["name"]: one.get("value") for one in main["env"]}
    assert found["PRICE"] == "5$$$$, $$(PORT)", "a kubelet makes $ of $$, and a value of $(PORT)"
    assert main["args"] == ["--key=$$(HF_TOKEN)", "$$HOME"]


def test_the_model_is_fetched_with_its_credential_from_a_file_and_read_only_afterwards() -> None:
    fetch, main = pod()["initContainers"][0], pod()["containers"][0]
    assert fetch["command"] == ["python", "-m", "endpoints.sources", "/etc/tir/fetch/source.json", "/opt/model"]
    assert {"name": "models", "mountPath": "/opt/model", "readOnly": True} in main["volumeMounts"]
    env = {one["name"]: one.get("value") for one in main["env"]}
    assert env["MODEL_PATH"] == "/opt/model/a/tiny.gguf"
    assert json.loads(env["TIR_CONFIG"] or "")["model"] == "/opt/model/a/tiny.gguf"
    assert json.loads(env["TIR_CONFIG"] or "")["port"] == 8000
    source = next(one for one in everything() if one["metadata"]["name"] == "endpoint-7-r3-source")
    told = {name: base64.b64decode(value).decode() for name, value in source["data"].items()}
    assert told["credential"] == "s3cr3t-key"
    assert json.loads(told["source.json"])["credential_file"] == "/etc/tir/fetch/credential"
    assert json.loads(told["source.json"])["source"]["files"] == ["a/tiny.gguf", "b"]


def test_other_engines_get_the_folder_and_an_image_that_brings_its_model_gets_none() -> None:
    folder = replace(SERVED, command=replace(LLAMA, engine="onnx"))
    assert podspec.model_of(folder.command or LLAMA) == "/opt/model"
    spec = pod(CUSTOM)
    assert "initContainers" not in spec
    assert [one["name"] for one in spec["volumes"]] == ["scratch", "shared-memory"]
    assert "MODEL_PATH" not in {one["name"] for one in spec["containers"][0]["env"]}


def test_our_images_need_no_registry_where_the_nodes_have_them_and_a_user_s_latest_is_the_latest() -> None:
    ours = pod()
    assert {one["imagePullPolicy"] for one in (*ours["initContainers"], *ours["containers"])} == {"IfNotPresent"}
    own = replace(SERVED, command=Command("custom", "", "demo", image=Image("registry.example/a:latest")))
    assert "imagePullPolicy" not in pod(own)["containers"][0]  # the cluster asks for `:latest` at each start


def test_a_custom_image_is_run_as_its_user_wrote() -> None:
    main = pod(CUSTOM)["containers"][0]
    assert (main["image"], main["args"]) == ("ghcr.io/a/b:1", ["serve"])
    assert "command" not in main, (
        "the same words mean the same in every region: they follow the image's entrypoint"
    )
    assert main["ports"][0]["containerPort"] == 9000
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert main[name]["httpGet"] == {"path": "/up", "port": "http"}
    assert pod(CUSTOM)["imagePullSecrets"] == [{"name": "ours"}, {"name": "endpoint-7-r3-pull"}]
    pull = next(one for one in everything(CUSTOM) if one["metadata"]["name"].endswith("-pull"))
    account = json.loads(base64.b64decode(pull["data"][".dockerconfigjson"]))["auths"]["ghcr.io"]
    assert base64.b64decode(account["auth"]) == b"u:p"


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("llama", manifests.DOCKER_HUB),
        ("library/llama:1", manifests.DOCKER_HUB),
        ("docker.io/library/llama", manifests.DOCKER_HUB),
        ("localhost/x", "localhost"),
        ("host:5000/x/y@sha256:00", "host:5000"),
    ],
)
def test_a_pull_secret_is_for_the_image_s_registry(image: str, registry: str) -> None:
    assert manifests.registry_of(image) == registry


def test_memory_is_promised_as_it_is_limited_and_gpus_run_where_the_region_says() -> None:
    spec, main = pod(), pod()["containers"][0]
    assert main["resources"]["limits"] == {"memory": str(16 << 30), "nvidia.com/gpu": "2"}
    assert main["resources"]["requests"] == {"cpu": "4000m", "memory": str(16 << 30), "nvidia.com/gpu": "2"}
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "tolerations" not in pod(replace(SERVED, machine="cpu-small"))


def test_a_slow_start_has_its_time_and_a_drain_its_grace() -> None:
    spec = pod(replace(SERVED, command=replace(LLAMA, startup_seconds=1800)))
    main = spec["containers"][0]
    assert main["startupProbe"]["failureThreshold"] * main["startupProbe"]["periodSeconds"] == 1800
    assert spec["terminationGracePeriodSeconds"] > main["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert the("Deployment")["spec"]["progressDeadlineSeconds"] > 600


def test_only_those_named_reach_an_instance_and_only_its_port() -> None:
    rules = the("NetworkPolicy")["spec"]
    (rule,) = rules["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert {"ipBlock": {"cidr": "10.0.0.0/8"}} in rule["from"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tir"}}} in rule["from"]
    assert rules["policyTypes"] == ["Ingress", "Egress"]
    assert the("NetworkPolicy", egress=None)["spec"]["policyTypes"] == ["Ingress"]


def test_a_cache_keeps_each_model_in_a_folder_of_its_own() -> None:
    def folder(wanted: Workload) -> str:
        main = pod(wanted, cache="models")["containers"][0]
        return next(str(one["subPath"]) for one in main["volumeMounts"] if one["name"] == "models")

    other = replace(SERVED, command=replace(LLAMA, fetch={**FETCH, "revision": "2"}))
    assert folder(SERVED) != folder(other)
    assert folder(SERVED) == folder(replace(SERVED, owner="endpoint-8", revision=9))
    fetch = pod(SERVED, cache="models")["initContainers"][0]  # which makes the folder: a kubelet's would be root's
    (mount,) = [one for one in fetch["volumeMounts"] if one["name"] == "models"]
    assert "subPath" not in mount
    assert fetch["command"][-1] == f"{mount['mountPath']}/{folder(SERVED)}"


@pytest.mark.parametrize(("gpus", "seen"), [(0, "void"), (1, None)])
def test_a_pod_that_asked_for_no_gpu_sees_none_whatever_its_image_says(gpus: int, seen: str | None) -> None:
    env = pod(replace(SERVED, gpus=gpus))["containers"][0]["env"]
    assert {one["name"]: one.get("value") for one in env}.get("NVIDIA_VISIBLE_DEVICES") == seen


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"owner": "Endpoint_7"}, "can't own an instance"),
        ({"replicas": -1}, "can't be below 0"),
        ({"command": None}, "nothing to run"),
        ({"env": {"a b": "1"}}, "can't be set for an instance: a b"),
        ({"env": {"TIR_CONFIG": "{}"}}, "TIR_CONFIG"),
        ({"env": {"NVIDIA_VISIBLE_DEVICES": "all"}}, "NVIDIA_VISIBLE_DEVICES"),
    ],
)
def test_what_no_cluster_can_run_is_rejected_in_words(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Rejected, match=said):
        labels.check(replace(SERVED, **changes))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"colour": "red"}, "setting called colour"),
        ({"namespace": "Not A Name"}, "namespace"),
        ({"ingress": ["10.0.0.0/99"]}, "neither a namespace nor a network"),
        ({"ingress": "tir"}, "must be a list"),
        ({"instance_types": {"a": {"taint": 1}}}, "node_selector and tolerations"),
        ({"kubeconfig": 7}, "must be a text"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(config)
