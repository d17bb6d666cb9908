"""What a region's settings mean, and what is asked of an engine for an instance: no engine is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoints.runtimes import runtime_for
from endpoints.runtimes.base import Command, Image, Rejected, Unavailable
from endpoints.runtimes.docker.containers import Container, Labels, Place, check, config, labels_in, read
from endpoints.runtimes.docker.gpus import choose, devices, room_of
from endpoints.runtimes.docker.hosts import Host, hosts_in
from endpoints.runtimes.docker.runtime import DockerRuntime, installation_of
from endpoints.runtimes.docker.usage import gpus_of
from endpoints.runtimes.docker.walls import Reached
from tests.docker.conftest import workload

LABELS = Labels("me", "endpoint-7-r1-aaaaa", "endpoint-7", 1, 100, 64 << 20, 1.5, 8000)
PLACE = Place("sha256:1", "65532:65532", 1, 100, "127.0.0.1", "tir-me", ("/models/x", "/opt/model/x.gguf"))
INFO: dict[str, Any] = {"NCPU": 4, "MemTotal": 8 << 30, "Architecture": "x86_64"}
TLS = {"ca": "/ca", "cert": "/cert", "key": "/key"}


def asked(changes: dict[str, Any] | None = None, **labels: Any) -> dict[str, Any]:
    wanted = workload(**(changes or {}))
    assert wanted.command
    return config(wanted, wanted.command, replace(LABELS, **labels), PLACE)


def variables(body: dict[str, Any]) -> dict[str, str]:
    return dict(each.split("=", 1) for each in body["Env"])


# ── settings ────────────────────────────────────────────────────────────────────────────────────
def test_a_region_without_hosts_is_this_machines_engine() -> None:
    (host,) = hosts_in([])
    assert (host.url, host.address, host.name) == ("unix:///var/run/docker.sock", "127.0.0.1", "this machine")


def test_a_host_elsewhere_is_reached_where_it_is() -> None:
    (host,) = hosts_in([{"url": "tcp://10.0.0.5:2376", "models": "/srv/models", "gpus": 2, **TLS}])
    assert (host.address, host.gpus, host.tls) == ("10.0.0.5", ("0", "1"), ("/ca", "/cert", "/key"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([{"url": "http://10.0.0.5"}], "begins with"),
        ([{"url": "tcp://10.0.0.5:2376"}], "models"),
        ([{"url": "tcp://box:2376", "models": "/m"}], "IP address"),
        ([{"ca": "/ca"}], "three files"),
        ([{"nmae": "a"}], "not nmae"),
        ([{"name": "a"}, {"name": "a"}], "one name"),
    ],
)
def test_settings_that_make_no_sense_are_said_in_words(given: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hosts_in(given)


def test_a_region_becomes_a_runtime_without_reaching_anything(tmp_path: Path) -> None:
    found = runtime_for("docker", {"data_dir": tmp_path, "cpu_overcommit": 2, "hosts": [{"url": "unix:///none"}]})
    assert isinstance(found, DockerRuntime)
    assert found.overcommit == 2
    with pytest.raises(ValueError, match="not hsots"):
        runtime_for("docker", {"data_dir": tmp_path, "hsots": []})


@pytest.mark.parametrize("host", [{"url": "tcp://10.0.0.5:2376", "models": "/m", **TLS}, {"network": "mine"}])
def test_only_this_machines_engine_and_a_network_of_ours_can_be_sealed(tmp_path: Path, host: Any) -> None:
    with pytest.raises(ValueError, match="can be sealed, not far"):
        runtime_for("docker", {"data_dir": tmp_path, "sealed": True, "hosts": [{"name": "far", **host}]})


def test_a_data_folder_has_one_name_for_good(tmp_path: Path) -> None:
    assert installation_of(tmp_path / "a") == installation_of(tmp_path / "a") != installation_of(tmp_path / "b")


def test_a_model_is_mounted_from_where_the_host_has_it(tmp_path: Path) -> None:
    file = tmp_path / "named" / "abc" / "model.gguf"
    file.parent.mkdir(parents=True)
    file.touch()
    here, elsewhere = Host("a", "unix:///s"), Host("b", "tcp://b", models="/srv/models")
    assert here.mount(str(file), tmp_path) == (str(file.parent), "/opt/model/model.gguf")
    assert elsewhere.mount(str(file), tmp_path) == ("/srv/models/named/abc", "/opt/model/model.gguf")
    assert elsewhere.mount(str(file.parent), tmp_path) == ("/srv/models/named/abc", "/opt/model")


# ── a container ─────────────────────────────────────────────────────────────────────────────────
def test_a_container_stands_inside_walls() -> None:
    limits = asked()["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == 64 << 20
    assert limits["NanoCpus"] == 100_000_000
    assert limits["ReadonlyRootfs"]
    assert limits["Init"]
    assert limits["CapDrop"] == ["ALL"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["RestartPolicy"] == {"Name": "no"}
    assert limits["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert limits["Mounts"] == [{"Type": "bind", "Source": "/models/x", "Target": "/opt/model", "ReadOnly": True}]
    assert limits["DeviceRequests"] == []


def test_a_container_without_gpus_sees_none_whatever_its_image_says() -> None:
    assert variables(asked())["NVIDIA_VISIBLE_DEVICES"] == "void"
    with_gpus = asked(gpus=("GPU-a", "GPU-b"))
    assert with_gpus["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == ["GPU-a", "GPU-b"]
    assert "NVIDIA_VISIBLE_DEVICES" not in variables(with_gpus)


def test_a_pre_built_container_is_told_what_to_serve() -> None:
    command = Command(engine="llama.cpp", model="/m/x.gguf", alias="demo", image=Image("i"))
    said = variables(asked({"command": command, "secrets": {"HF_TOKEN": "hf_x"}}))
    assert '"model": "/opt/model/x.gguf"' in said["TIR_CONFIG"]
    assert said["MODEL_PATH"] == "/opt/model/x.gguf"
    assert (said["HF_TOKEN"], said["TIR_SECRETS"]) == ("hf_x", "HF_TOKEN")
    assert "TIR_CONFIG" not in variables(asked())


def test_a_sealed_container_publishes_nothing_and_asks_only_itself_for_names() -> None:
    wanted = workload()
    assert wanted.command
    sealed = replace(PLACE, publish="", network="tir-me-in")
    limits = config(wanted, wanted.command, LABELS, sealed)["HostConfig"]
    assert (limits["PortBindings"], limits["Dns"], limits["NetworkMode"]) == ({}, ["127.0.0.1"], "tir-me-in")
    assert asked()["HostConfig"]["Dns"] == []


def test_a_seal_is_feared_open_where_the_engine_filters_nothing() -> None:
    here, nothing = Host("here", "unix:///s"), Reached(False, False, False, False)
    assert nothing.words(here, "tir-me-in") == "an instance reaches neither another one nor the host"
    came = replace(nothing, neighbour=True)
    assert "every network although the region is sealed" in came.words(here, "tir-me-in")
    assert "sealed" not in came.words(here, "tir-me-out")


def test_no_credential_reaches_a_container_but_the_secrets_that_its_user_named() -> None:
    image = Image("i", username="puller", password="pull-word")
    command = Command(engine="onnx", model="/m", alias="demo", image=image, credential="fetch-word")
    body = str(asked({"command": command, "secrets": {"MINE": "my-word"}}))
    assert "my-word" in body
    assert not {word for word in ("puller", "pull-word", "fetch-word") if word in body}


def test_the_users_words_for_a_container_are_its_command() -> None:
    command = Command(engine="custom", model="", alias="demo", image=Image("i", command=("serve", "--all")))
    assert asked({"command": command})["Cmd"] == ["serve", "--all"]
    assert "Cmd" not in asked()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owner": "../escape"}, "can't own an instance"),
        ({"replicas": -1}, "below 0"),
        ({"command": Command(engine="custom", model="", alias="demo")}, "no image"),
        ({"env": {"TIR_OWNER": "endpoint-1"}}, "TIR_OWNER"),
        ({"env": {"NVIDIA_VISIBLE_DEVICES": "all"}}, "NVIDIA_VISIBLE_DEVICES"),
        ({"secrets": {"A=B": "c"}}, "A=B"),
        ({"env": {"A": "b\0c"}}, "zero byte"),
    ],
)
def test_what_can_never_run_is_rejected_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        check(workload(**changes))


def test_what_is_not_ours_is_passed_over() -> None:
    entry = {"Id": "1", "Names": ["/x"], "State": "running", "Labels": {"tir.installation": "me"}, "Ports": []}
    assert read(entry, "127.0.0.1", "") is None
    assert labels_in(LABELS.to_dict()) == LABELS


def test_an_address_is_the_published_port_or_the_place_in_a_network() -> None:
    entry = {
        "Id": "1",
        "Names": ["/endpoint-7-r1-aaaaa.leaving.99"],
        "State": "running",
        "Labels": LABELS.to_dict(),
        "Ports": [{"PrivatePort": 8000, "PublicPort": 49153, "IP": "::1"}],
        "NetworkSettings": {"Networks": {"mine": {"IPAddress": "172.20.0.3"}}},
    }
    published, joined = read(entry, "::1", ""), read(entry, "127.0.0.1", "mine")
    assert published
    assert joined
    assert (published.address, joined.address) == ("http://[::1]:49153", "http://172.20.0.3:8000")
    assert published.left_at == 99
    inside = entry | {"Ports": [], "NetworkSettings": {"Networks": {"tir-me-in": {"IPAddress": "10.9.0.2"}}}}
    sealed = read(inside, "127.0.0.1", "")
    assert sealed
    assert sealed.address == "http://10.9.0.2:8000"


# ── room and GPUs ───────────────────────────────────────────────────────────────────────────────
def running(**labels: Any) -> Container:
    return Container("1", replace(LABELS, **labels), "running", None, None)


def test_gpus_are_found_where_somebody_names_them(tmp_path: Path) -> None:
    host = Host("a", "unix:///s")
    generic = [{"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": "GPU-7"}}]
    cdi = [{"ID": f"nvidia.com/gpu={each}"} for each in ("0", "1", "all", "GPU-x")]
    (tmp_path / "0000:01").mkdir()
    (tmp_path / "0000:01" / "information").write_text("Model: H100\nGPU UUID: \t GPU-abc\n")
    assert devices(replace(host, gpus=("3",)), {"GenericResources": generic}) == ("3",)
    assert devices(host, {"GenericResources": generic}) == ("GPU-7",)
    assert devices(host, {"DiscoveredDevices": cdi}) == ("0", "1")
    assert devices(host, {}, driver=tmp_path) == ("GPU-abc",)
    assert devices(Host("b", "tcp://b"), {}, driver=tmp_path) == ()


def test_a_gpu_is_handed_out_once() -> None:
    host = Host("a", "unix:///s", gpus=("0", "1", "2"))
    room = room_of(host, INFO, [running(gpus=("1",)), replace(running(gpus=("2",)), state="exited")], 1.0)
    assert room.gpus_free == ("0", "2")
    assert room.architecture == "amd64"  # as images say it
    with pytest.raises(Unavailable, match=r"3 GPUs: a has 3\.9 vCPU and 7\.9 GiB and 2 GPUs free"):
        choose([room], workload(gpus=3))


@pytest.mark.parametrize(
    ("said", "found"),
    [(b"37, 1024\n5, 512\n", (21.0, 1536 << 20)), (b"OCI runtime exec failed: no nvidia-smi", (None, None))],
)
def test_gpus_are_measured_inside_the_container_that_has_them(said: bytes, found: tuple[Any, Any]) -> None:
    class Client:
        def exec_create(self, container: str, command: list[str], **options: Any) -> dict[str, str]:
            return {"Id": "exec"}

        def exec_start(self, made: str) -> bytes:
            return said

    host = Host("a", "unix:///s")
    host.__dict__["client"] = Client()
    assert gpus_of(host, running(gpus=("0", "1"))) == found
    assert gpus_of(host, running()) == (None, None)


def test_an_instance_goes_where_there_is_most_room_and_leaves_gpus_to_those_who_need_them() -> None:
    small = room_of(Host("small", "unix:///s"), INFO | {"MemTotal": 4 << 30}, [], 1.0)
    large = room_of(Host("large", "unix:///s"), INFO, [running()], 1.0)
    gpus = room_of(Host("gpus", "unix:///s", gpus=("0",)), INFO | {"MemTotal": 64 << 30}, [], 1.0)
    assert choose([small, large, gpus], workload()).host.name == "large"
    assert choose([small, large, gpus], workload(gpus=1)).host.name == "gpus"
    assert choose([small, gpus], workload(memory_bytes=32 << 30)).host.name == "gpus"
    assert room_of(Host("x", "unix:///s"), INFO, [], 2.0).cpu_millis == 8000
