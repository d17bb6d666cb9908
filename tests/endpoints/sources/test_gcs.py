"""A model from Google Cloud Storage: an emulator's JSON API, behind a door that asks for tokens as Google does."""

import gzip
import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.server import create_server

from endpoints.sources import network, source_for
from endpoints.sources.bucket import BucketSource
from endpoints.sources.download import PIECE
from endpoints.sources.fetching import Patience
from tests.endpoints.sources.conftest import LARGE, ignore, problem
from tests.front import Answer, Fault, Front

FILES = {
    "models/tiny/tiny.gguf": LARGE,
    "folder/config.json": b"{}",
    "folder/weights/größe +1.bin": bytes(range(256)) * 1200,
}

GCS = Callable[..., BucketSource]


class Google:
    """What the emulator leaves out: tokens for keys, rights for tokens, generations."""

    def __init__(self, public: str) -> None:
        self.public, self.refusal = public, ("", 0)
        self.asked: list[str] = []
        self.open_to_all = False
        self.forbidden = False

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        if path == "/token":
            return self._token(body)
        self.asked.append(headers.get("Authorization", ""))
        if self.forbidden:
            return _error(403, "reader@p does not have storage.objects.list access")
        if not self.open_to_all and headers.get("Authorization") != "Bearer ya29.good":
            return _error(401, "Anonymous caller does not have storage.objects.list access")
        return None

    def _token(self, body: bytes) -> Answer:
        asked = dict(urllib.parse.parse_qsl(body.decode()))
        why, status = self.refusal
        if why:
            return status, {}, json.dumps({"error": "invalid_grant", "error_description": why}).encode()
        try:
            jwt.decode(asked["assertion"], self.public, ["RS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError:
            said = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return 400, {}, json.dumps(said).encode()
        return 200, {}, json.dumps({"access_token": "ya29.good", "expires_in": 3600}).encode()


def _error(status: int, message: str) -> Answer:
    return status, {}, json.dumps({"error": {"code": status, "message": message}}).encode()


@pytest.fixture(scope="session")
def key() -> tuple[str, str]:
    """A private key and its public half."""
    made = rsa.generate_private_key(65537, 2048)
    private = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    server: Any = create_server("127.0.0.1", 0, in_memory=True, default_bucket="models")
    server.start()
    yield f"http://127.0.0.1:{server._api._httpd.server_address[1]}"
    server.stop()


def put(emulator: str, name: str, data: bytes) -> None:
    asked = {"uploadType": "media", "name": name}
    httpx2.post(f"{emulator}/upload/storage/v1/b/models/o", params=asked, content=data).raise_for_status()


@pytest.fixture
def google(emulator: str, key: tuple[str, str]) -> Google:
    for name, data in FILES.items():
        put(emulator, name, data)
    return Google(key[1])


@pytest.fixture
def front(emulator: str, google: Google) -> Iterator[Front]:
    with Front(emulator, door=google) as front:
        yield front


@pytest.fixture
def gcs(front: Front, key: tuple[str, str]) -> GCS:
    """`gcs(path=…, token=…)`: an impatient source with a service account at the server of the test."""
    account = {
        "type": "service_account",
        "client_email": "reader@p.iam.gserviceaccount.com",
        "private_key": key[0],
        "token_uri": f"{front.url}/token",
    }

    def source(*, token: str | None = json.dumps(account), **spec: Any) -> BucketSource:
        settings = {"kind": "gcs", "bucket": "models", "path": "models/tiny", "url": front.url}
        found = source_for(settings | spec, store=Path("/nowhere"), token=token, hub="")
        assert isinstance(found, BucketSource)
        return replace(found, patience=Patience(stall=20.0, attempts=2))

    return source


def test_a_model_is_found_by_its_header_and_arrives(gcs: GCS, front: Front, tmp_path: Path) -> None:
    found = gcs().check()
    assert found.facts is not None
    assert found.facts.architecture == "llama"
    assert all(one.headers["Range"] for one in front.of("alt=media"))
    path = gcs(revision=found.revision).fetch(tmp_path, ignore, ["tiny.gguf"])
    assert path.read_bytes() == LARGE
    assert found.revision in path.parts


def test_a_folder_arrives_whole_under_any_names(gcs: GCS, tmp_path: Path) -> None:
    names = [file.path for file in gcs(path="folder").check("pytorch").files]
    assert names == ["config.json", "weights/größe +1.bin"]
    first = gcs(path="folder").fetch(tmp_path, ignore, names)
    for name in names:
        assert (first.parent / name).read_bytes() == FILES[f"folder/{name}"]


def test_one_token_is_asked_for_and_used_for_all(gcs: GCS, front: Front, google: Google, tmp_path: Path) -> None:
    gcs(path="folder").fetch(tmp_path, ignore, ["config.json", "weights/größe +1.bin"])
    assert set(google.asked) == {"Bearer ya29.good"}
    assert [one.path for one in front.passed].count("/token") == 1


def test_what_was_cut_goes_on_where_it_ended(gcs: GCS, front: Front, tmp_path: Path) -> None:
    front.fault(Fault("alt=media", cut_after=300_000))
    assert gcs().fetch(tmp_path, ignore, ["tiny.gguf"]).read_bytes() == LARGE
    first, second = front.sent("alt=media")
    assert first == 300_000
    assert len(LARGE) - 300_000 <= second <= len(LARGE) - 300_000 + PIECE


@pytest.mark.parametrize("checksum", ["md5", "crc32c"])
def test_bytes_are_held_against_the_declared_checksum(
    gcs: GCS, front: Front, tmp_path: Path, checksum: str
) -> None:
    """A composite object has a crc32c only."""
    listed = httpx2.get(f"http://{front.behind}/storage/v1/b/models/o").json()
    for one in listed["items"]:
        one[{"md5": "crc32c", "crc32c": "md5Hash"}[checksum]] = ""
    front.fault(Fault("/o?", status=200, body=json.dumps(listed).encode()))
    source = gcs()
    front.fault(Fault("alt=media", corrupt=True))
    found = problem(lambda: source.fetch(tmp_path, ignore, ["tiny.gguf"]))
    assert found[0] == "damaged"
    assert checksum in found[2]
    assert source.fetch(tmp_path, ignore, ["tiny.gguf"]).read_bytes() == LARGE


def test_more_objects_than_one_page_are_all_seen(gcs: GCS, front: Front) -> None:
    for number, more in ((1, {"nextPageToken": "more"}), (2, {})):
        item = {"name": f"many/{number}", "size": "1", "generation": "1"}
        front.fault(Fault("/o?", status=200, body=json.dumps({"items": [item]} | more).encode()))
    assert [file.path for file in gcs(path="many").files()] == ["1", "2"]
    assert "pageToken=more" in front.passed[-1].path


def test_an_object_that_changed_since_it_was_pinned_is_refused(gcs: GCS, emulator: str, tmp_path: Path) -> None:
    revision = gcs().check().revision
    put(emulator, "models/tiny/README.md", b"other objects don't matter")
    gcs(revision=revision).fetch(tmp_path / "one", ignore, ["tiny.gguf"])
    put(emulator, "models/tiny/tiny.gguf", LARGE[:-1] + b"x")
    pinned = gcs(revision=revision)
    found = problem(lambda: pinned.fetch(tmp_path / "two", ignore, ["tiny.gguf"]))
    assert found[:2] == ("changed", "path")
    assert "Deploy a new revision" in found[2]


def test_a_generation_that_is_gone_is_said(gcs: GCS, front: Front, tmp_path: Path) -> None:
    source = gcs()
    source.files()
    front.fault(Fault("generation=", status=404, body=b"No such object"))
    assert problem(lambda: source.fetch(tmp_path, ignore, ["tiny.gguf"]))[:2] == ("changed", "path")


def test_a_public_bucket_needs_no_account(gcs: GCS, google: Google) -> None:
    assert problem(gcs(token=None).check)[:2] == ("forbidden", "token_secret")
    google.open_to_all = True
    gcs(token=None).check()
    assert set(google.asked) == {""}


def test_every_wrong_key_says_what_to_do(gcs: GCS, google: Google, front: Front) -> None:
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": "reader@p", "token_uri": f"{front.url}/token"}
    for wrong in ("{}", "not json", "[]", json.dumps(account | {"private_key": "nonsense"})):
        assert problem(gcs(token=wrong).check)[:2] == ("bad_key", "token_secret")
    found = problem(gcs(token=json.dumps(account | {"private_key": other.decode()})).check)
    assert found[:2] == ("bad_key", "token_secret")
    assert "Invalid JWT Signature" in found[2]
    google.refusal = ("Invalid JWT: Token must be a short-lived token. Check your iat and exp values", 400)
    assert problem(gcs().check)[0] == "clock_skew"
    google.refusal = ("backend error", 503)
    assert problem(gcs().check)[0] == "busy"


def test_what_is_not_there_is_said_at_its_setting(gcs: GCS, front: Front, google: Google) -> None:
    front.fault(Fault("/b/nothing/", status=404, body=_error(404, "The specified bucket does not exist.")[2]))
    assert problem(gcs(bucket="nothing").check)[:2] == ("no_bucket", "bucket")
    assert problem(gcs(path="models/none").check)[:2] == ("no_path", "path")
    assert problem(gcs(path="folder").check)[:2] == ("no_model", "path")
    google.forbidden = True
    found = problem(gcs().check)
    assert found[:2] == ("forbidden", "token_secret")
    assert "reader@p.iam.gserviceaccount.com may not read gs://models" in found[2]


def test_an_answer_without_end_is_not_kept_in_memory_and_a_model_of_any_size_comes(
    gcs: GCS, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MOST", 10_000)
    packed = gzip.compress(b" " * 1_000_000)
    for place in ("/token", "/o?", "alt=media"):
        method, headers = "POST" if place == "/token" else "GET", {"Content-Encoding": "gzip"}
        front.faults = [Fault(place, status=403, body=packed, headers=headers, method=method)]
        assert problem(gcs().check)[:2] == ("too_long", "url"), place
    front.faults = []
    assert len(LARGE) > network.MOST
    assert gcs().fetch(tmp_path, ignore, ["tiny.gguf"]).read_bytes() == LARGE


def test_what_is_no_such_service_is_said(gcs: GCS, front: Front) -> None:
    for status, body in ((200, b"<html>Welcome</html>"), (404, b"Not found"), (200, b'{"other": 1}')):
        front.faults = [Fault("/o?", status=status, body=body)]
        assert problem(gcs().check)[:2] == ("not_gcs", "url")
    assert problem(gcs(url="storage.example").check)[:2] == ("malformed_url", "url")
    assert problem(gcs(url="http://127.0.0.1:9").check)[:2] == ("no_network", "url")
    assert problem(gcs(url="http://169.254.169.254").check)[:2] == ("address_refused", "url")
    front.faults = [Fault("/o?", status=302, headers={"Location": "http://169.254.169.254/"})]
    assert problem(gcs().check)[:2] == ("address_refused", "url")
