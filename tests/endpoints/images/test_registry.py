"""An image looked at where its registry has it, over the real protocol: what is there, and what may be wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoints.images.door import Door
from endpoints.images.names import name_of, pinned
from endpoints.images.registry import Seen, look
from endpoints.sources import SourceProblem
from tests.certificates import certificate, context
from tests.oci import INDEX, Registry, digest_of, image

PASSWORD = "hunter2-of-bob"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(users={"bob": PASSWORD}) as running:
        yield running


def seen(image: str, *architectures: str, user: str = "", password: str = "", private: bool = True) -> Seen:
    name = name_of(image)
    assert name is not None
    return look(Door(name, user, password, private=private), architectures)


def refused(image: str, user: str = "", password: str = "", *, private: bool = True) -> SourceProblem:
    with pytest.raises(SourceProblem) as caught:
        seen(image, user=user, password=password, private=private)
    assert not password or password not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("written", "server", "path", "reference"),
    [
        ("ubuntu", "registry-1.docker.io", "library/ubuntu", "latest"),
        ("docker.io/ubuntu:24.04", "registry-1.docker.io", "library/ubuntu", "24.04"),
        ("index.docker.io/team/own", "registry-1.docker.io", "team/own", "latest"),
        ("team/own:1", "registry-1.docker.io", "team/own", "1"),
        ("localhost/own:1", "localhost", "own", "1"),
        ("r.example:5000/a/b/c__d:v1.0_x", "r.example:5000", "a/b/c__d", "v1.0_x"),
        ("[::1]:5000/own", "[::1]:5000", "own", "latest"),
        (f"r.example/own:1@sha256:{'0a' * 32}", "r.example", "own", f"sha256:{'0a' * 32}"),
    ],
)
def test_a_name_means_what_engines_take_it_for(written: str, server: str, path: str, reference: str) -> None:
    name = name_of(written)
    assert name is not None
    assert (name.server, name.path, name.reference) == (server, path, reference)


@pytest.mark.parametrize(
    "written", ["", "A b", "team/Own", "https://r.example/own", "own@sha256:12", "r.example:99999/own", "a" * 600]
)
def test_what_no_registry_could_have_is_no_name(written: str) -> None:
    assert name_of(written) is None


def test_an_image_is_seen_as_it_would_be_pulled(registry: Registry) -> None:
    registry.cdn = f"http://localhost:{registry.port}"
    digest = registry.push("team/own", "1", image(User="app", Healthcheck={"Test": ["CMD", "true"]}))
    found = seen(registry.name("team/own:1"), user="bob", password=PASSWORD)
    assert (found.digest, found.platforms, found.layers) == (digest, ("linux/amd64",), 2)
    assert (found.contents.user, found.contents.ports, found.contents.size) == ("app", (8000,), 12 << 20)
    assert (found.contents.health, found.contents.variables, found.contents.packed) == (True, ("LANG",), True)
    assert Seen.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert seen(pinned(registry.name("team/own:1"), digest)).digest == digest
    basic = base64.b64encode(f"bob:{PASSWORD}".encode()).decode()
    told = {path.partition("?")[0].split("/")[1]: authorization for path, authorization in registry.asked}
    assert [path for path, sent in registry.asked if basic in sent and "/token" not in path] == []
    assert told["cdn"] == ""
    assert PASSWORD not in str([path for path, _ in registry.asked])


def test_of_several_platforms_the_one_is_read_that_the_machines_would_pull(registry: Registry) -> None:
    arm, amd = image("arm64", User="arm"), image("amd64", User="amd")
    digest = registry.push("team/own", "1", arm, amd, image("amd64", "windows"), attested=True)
    found = seen(registry.name("team/own:1"), "amd64")
    assert (found.digest, found.contents.user) == (digest, "amd")
    assert found.platforms == ("linux/arm64", "linux/amd64", "windows/amd64")
    assert found.contents.architectures == ("arm64", "amd64")
    assert seen(registry.name("team/own:1"), "s390x").contents.user == "arm"


@pytest.mark.parametrize("auth", ["bearer", "basic"])
def test_a_private_one_is_shown_to_its_user_alone(auth: str) -> None:
    with Registry(users={"bob": PASSWORD}, auth=auth, private=True) as registry:
        registry.push("team/own", "1", image())
        name = registry.name("team/own:1")
        assert seen(name, user="bob", password=PASSWORD).contents.system == "linux"
        assert (refused(name).code, refused(name).field) == ("private", "image")
        wrong = refused(name, "bob", "wrong-password")
        assert wrong.field == "registry_secret"
        assert wrong.code == {"bearer": "bad_credentials", "basic": "forbidden"}[auth]


def test_what_is_not_there_is_told_apart(registry: Registry) -> None:
    for tag in ("0.9", "1.0", "1.1"):
        registry.push("team/own", tag, image())
    absent = refused(registry.name("team/own:2"))
    assert (absent.code, absent.field) == ("no_tag", "image")
    assert "has no tag “2”. There is: 0.9, 1.0, 1.1." in absent.message
    missing = refused(registry.name("team/other:1"))
    assert missing.code == "no_image"
    assert f"127.0.0.1:{registry.port} has no image team/other" in missing.message


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Retry-After": "90"}, "Try again in 90 s"),
        ({"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, "hours"),
        ({"RateLimit-Limit": "100;w=21600"}, "within 6 hours"),
        ({}, "in a few minutes"),
    ],
)
def test_a_limit_says_when_to_come_again(registry: Registry, headers: dict[str, str], said: str) -> None:
    registry.faults, registry.headers = {"/manifests/": 429}, headers
    problem = refused(registry.name("team/own:1"))
    assert (problem.code, problem.passing) == ("rate_limited", True)
    assert said in problem.message


def test_artifacts_and_old_images_are_no_images(registry: Registry) -> None:
    registry.push_artifact("team/chart", "1", "application/vnd.cncf.helm.config.v1+json")
    chart = refused(registry.name("team/chart:1"))
    assert (chart.code, "vnd.cncf.helm.config.v1+json" in chart.message) == ("no_container", True)
    registry.place("team/none", "1", INDEX, json.dumps({"schemaVersion": 2, "manifests": []}).encode())
    assert refused(registry.name("team/none:1")).code == "no_container"
    registry.place("team/old", "1", INDEX, json.dumps({"schemaVersion": 1, "fsLayers": []}).encode())
    assert refused(registry.name("team/old:1")).code == "outdated"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"x" * (5 << 20), b'{"config": 1, "layers": 2}'])
def test_what_is_no_registry_is_told(registry: Registry, body: bytes) -> None:
    registry.place("team/own", "1", INDEX, body)
    assert refused(registry.name("team/own:1")).code in {"no_registry", "no_container"}


def test_what_was_changed_on_the_way_is_found_out(registry: Registry) -> None:
    registry.push("team/own", "1", image())
    for digest in registry.blobs:
        registry.blobs[digest] = json.dumps(image(User="0")).encode()
    assert refused(registry.name("team/own:1")).code == "damaged"
    other = digest_of(b"other")
    registry.manifests["team/own", other] = registry.manifests["team/own", "1"]
    assert refused(registry.name(f"team/own@{other}")).code == "damaged"


def test_a_password_goes_to_no_token_service_that_others_can_listen_to(registry: Registry) -> None:
    with Registry() as other:
        for realm in ("ftp://x/token", "nonsense", f"http://u:p@127.0.0.1:{other.port}/token"):
            registry.realm = realm
            assert refused(registry.name("team/own:1"), "bob", PASSWORD).code == "no_registry"
        assert other.asked == []


def test_https_is_spoken_and_its_certificate_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = certificate(tmp_path)
    with Registry(tls=context(tls)) as registry:
        registry.push("team/own", "1", image())
        assert refused(registry.name("team/own:1")).code == "bad_certificate"
        monkeypatch.setenv("SSL_CERT_FILE", str(tls))
        assert seen(registry.name("team/own:1")).layers == 2
        registry.realm = f"http://127.0.0.1:{registry.port}/token"
        assert refused(registry.name("team/own:1"), "bob", PASSWORD).code == "no_registry"


def test_a_silent_address_and_one_that_is_not_to_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = refused("127.0.0.1:9/team/own:1")
    assert (gone.code, gone.passing, gone.field) == ("no_network", True, "image")
    for address in ("169.254.169.254", "[fe80::1]:5000"):
        assert refused(f"{address}/team/own:1").code == "address_refused"
    shut = refused("127.0.0.1:9/team/own:1", private=False)
    assert (shut.code, shut.field) == ("address_refused", "image")
    assert "SOURCES_ALLOW_PRIVATE" in shut.message


def test_nothing_that_it_sends_on_to_is_asked_where_nothing_is_to_be_reached(registry: Registry) -> None:
    registry.push("team/own", "1", image())
    registry.cdn = "http://169.254.169.254"
    assert refused(registry.name("team/own:1")).code == "address_refused"
    registry.realm = "https://169.254.169.254/token"
    assert refused(registry.name("team/own:1"), "bob", PASSWORD).code == "address_refused"


def test_a_page_is_kept_waiting_for_so_long_only(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endpoints.images.door.TOGETHER", 0)
    slow = refused(registry.name("team/own:1"))
    assert (slow.code, slow.passing) == ("timeout", True)
