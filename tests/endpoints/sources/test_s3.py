"""A model from S3: a real server's protocol (moto's, over HTTP, with signatures checked), and its refusals."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from endpoints.sources import network, s3_client, source_for
from endpoints.sources.bucket import BucketSource
from endpoints.sources.download import PIECE
from endpoints.sources.fetching import Patience
from tests.endpoints.sources.conftest import LARGE, SECRET, SMALL, ignore, problem
from tests.front import Answer, Fault, Front
from tests.s3_host import owner, s3_host

FILES = {
    "models/tiny/tiny.gguf": LARGE,
    "models/tiny/": b"",
    "models/other.txt": b"not of the model",
    "folder/config.json": b"{}",
    "folder/weights/größe +1.bin": bytes(range(256)) * 1200,
}

S3 = Callable[..., BucketSource]


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    with s3_host() as address:
        yield address


@pytest.fixture(scope="session")
def admin(moto: str) -> Any:
    """A client of the server's owner; what a test changes lies under a name of its own."""
    client = owner("s3", moto)
    client.create_bucket(Bucket="models")
    for key, data in FILES.items():
        client.put_object(Bucket="models", Key=key, Body=data)
    return client


@pytest.fixture
def front(moto: str, admin: Any) -> Iterator[Front]:
    with Front(moto) as front:
        yield front


@pytest.fixture
def s3(front: Front) -> S3:
    """`s3(path=…, access_key=…, token=…)`: an impatient source at the server of the test."""

    def source(*, token: str | None = SECRET, **spec: Any) -> BucketSource:
        settings = {
            "kind": "s3",
            "bucket": "models",
            "path": "models/tiny",
            "url": front.url,
            "access_key": "AKIA1",
        }
        found = source_for(settings | spec, store=Path("/nowhere"), token=token, hub="")
        assert isinstance(found, BucketSource)
        return replace(found, patience=Patience(stall=20.0, attempts=2))

    return source


def test_a_model_is_found_by_its_header_and_arrives(s3: S3, tmp_path: Path) -> None:
    found = s3(path="/models/tiny/").check()
    assert [file.path for file in found.files] == ["tiny.gguf"]
    assert found.facts is not None
    assert found.facts.architecture == "llama"
    pinned = s3(revision=found.revision)
    path = pinned.fetch(tmp_path, ignore, ["tiny.gguf"])
    assert path.read_bytes() == LARGE
    assert found.revision in path.parts


def test_the_header_is_read_without_fetching_the_model(s3: S3, front: Front) -> None:
    s3().check()
    assert all(one.headers["Range"] for one in front.of("tiny.gguf"))


def test_a_folder_arrives_whole_under_any_names(s3: S3, tmp_path: Path) -> None:
    found = s3(path="folder").check("pytorch")
    names = [file.path for file in found.files]
    assert names == ["config.json", "weights/größe +1.bin"]
    seen: list[tuple[int, int]] = []
    first = s3(path="folder").fetch(tmp_path, lambda done, total: seen.append((done, total)), names)
    for name in names:
        assert (first.parent / name).read_bytes() == FILES[f"folder/{name}"]
    total = sum(file.size for file in found.files)
    assert (seen[0], seen[-1]) == ((0, total), (total, total))


def test_a_store_that_sends_the_whole_for_a_piece_is_read_right_and_no_further(s3: S3, front: Front) -> None:
    seen = s3().check().facts

    def whole(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        ours = method == "GET" and path.endswith("tiny.gguf")
        return (200, {"ETag": f'"{hashlib.md5(LARGE).hexdigest()}"'}, LARGE) if ours else None

    front.door = whole
    assert s3().check().facts == seen
    assert s3().read("tiny.gguf", 1000, 8) == LARGE[1000:1008]


@pytest.mark.parametrize(
    ("folder", "keys", "words"),
    [
        ("both", ("a", "a/b.bin"), "holds “a” and “a/b.bin”"),
        ("long", ("n" * 240,), "a name may have 200 bytes"),
    ],
)
def test_names_that_no_disk_takes_are_said_before_anything_is_fetched(
    s3: S3, admin: Any, tmp_path: Path, folder: str, keys: tuple[str, ...], words: str
) -> None:
    for key in ("model.py", *keys):
        admin.put_object(Bucket="models", Key=f"{folder}/{key}", Body=b"class Model: ...")
    for act in (
        lambda: s3(path=folder).check("python"),
        lambda: s3(path=folder).fetch(tmp_path, ignore, ["model.py", *keys]),
    ):
        code, field, message = problem(act)
        assert (code, field) == ("bad_name", "path")
        assert words in message
    assert s3(path=folder).fetch(tmp_path, ignore, ["model.py"]).read_bytes() == b"class Model: ..."


def test_more_objects_than_one_page_are_all_seen(s3: S3, front: Front) -> None:
    one = "<Contents><Key>{}</Key><Size>1</Size><ETag>1</ETag></Contents>"
    page = "<?xml version='1.0'?><ListBucketResult><Name>models</Name>{}</ListBucketResult>"
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>"
    for listed in (one.format("many/1") + more, one.format("many/2")):
        front.fault(Fault("list-type=2", status=200, body=page.format(listed).encode()))
    assert [file.path for file in s3(path="many").files()] == ["1", "2"]
    assert "continuation-token=more" in front.passed[-1].path


def test_a_bucket_of_everything_is_not_taken_for_a_model(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("endpoints.sources.bucket.MOST", 2)
    assert problem(s3(path="").check)[:2] == ("too_many", "path")


def test_what_was_cut_goes_on_where_it_ended(s3: S3, front: Front, tmp_path: Path) -> None:
    front.fault(Fault("tiny.gguf", cut_after=300_000))
    assert s3().fetch(tmp_path, ignore, ["tiny.gguf"]).read_bytes() == LARGE
    first, second = front.sent("tiny.gguf")
    assert first == 300_000
    assert len(LARGE) - 300_000 <= second <= len(LARGE) - 300_000 + PIECE


def test_a_second_fetch_asks_for_no_bytes(s3: S3, front: Front, tmp_path: Path) -> None:
    first = s3().fetch(tmp_path, ignore, ["tiny.gguf"])
    asked = len(front.of("tiny.gguf"))
    assert s3().fetch(tmp_path, ignore, ["tiny.gguf"]) == first
    assert len(front.of("tiny.gguf")) == asked


def test_a_busy_store_is_asked_again(s3: S3, front: Front, tmp_path: Path) -> None:
    front.fault(Fault("tiny.gguf", status=503, body=error("SlowDown")))
    assert s3().fetch(tmp_path, ignore, ["tiny.gguf"]).read_bytes() == LARGE


def test_damaged_bytes_are_thrown_away(s3: S3, front: Front, tmp_path: Path) -> None:
    front.fault(Fault("tiny.gguf", corrupt=True))
    source = s3()
    assert problem(lambda: source.fetch(tmp_path, ignore, ["tiny.gguf"]))[0] == "damaged"
    assert not list(tmp_path.rglob("*.gguf"))


def test_a_declared_sha256_is_held_against_the_bytes(s3: S3, front: Front, admin: Any, tmp_path: Path) -> None:
    admin.put_object(Bucket="models", Key="sum/a.bin", Body=SMALL, ChecksumAlgorithm="SHA256")
    source = s3(path="sum")
    digest = source.bucket.digest(source._items["a.bin"])
    assert digest is not None
    assert (digest.name, digest.value) == ("sha256", hashlib.sha256(SMALL).hexdigest())


def test_an_object_that_changed_since_it_was_pinned_is_refused(s3: S3, admin: Any, tmp_path: Path) -> None:
    admin.put_object(Bucket="models", Key="changed/tiny.gguf", Body=LARGE)
    revision = s3(path="changed").check().revision
    admin.put_object(Bucket="models", Key="changed/README.md", Body=b"other objects don't matter")
    s3(path="changed", revision=revision).fetch(tmp_path / "one", ignore, ["tiny.gguf"])
    admin.put_object(Bucket="models", Key="changed/tiny.gguf", Body=LARGE[:-1] + b"x")
    pinned = s3(path="changed", revision=revision)
    code, field, said = problem(lambda: pinned.fetch(tmp_path / "two", ignore, ["tiny.gguf"]))
    assert (code, field) == ("changed", "path")
    assert "Deploy a new revision, or import it again" in said


def test_what_is_laid_into_the_folder_later_is_no_part_of_the_model(s3: S3, admin: Any, tmp_path: Path) -> None:
    admin.put_object(Bucket="models", Key="later/config.json", Body=b"{}")
    revision = s3(path="later").check("pytorch").revision
    admin.put_object(Bucket="models", Key="later/notes.txt", Body=b"new")
    pinned = s3(path="later", revision=revision)
    assert pinned.check("pytorch").revision == revision
    pinned.fetch(tmp_path, ignore, ["config.json"])
    admin.put_object(Bucket="models", Key="later/config.json", Body=b"[]")
    pinned = s3(path="later", revision=revision)
    assert problem(lambda: pinned.fetch(tmp_path, ignore, ["config.json"]))[0] == "changed"


def test_an_object_that_changes_while_it_is_fetched_is_not_mixed(
    s3: S3, front: Front, admin: Any, tmp_path: Path
) -> None:
    admin.put_object(Bucket="models", Key="changing/tiny.gguf", Body=LARGE)
    front.fault(Fault("tiny.gguf", cut_after=300_000))
    changing = threading.Event()

    def progress(done: int, total: int) -> None:
        if done and not changing.is_set():
            changing.set()
            admin.put_object(Bucket="models", Key="changing/tiny.gguf", Body=b"x" * len(LARGE))

    source = s3(path="changing")
    assert problem(lambda: source.fetch(tmp_path, progress, ["tiny.gguf"]))[:2] == ("changed", "path")


def test_an_object_that_is_gone_is_said(s3: S3, admin: Any, tmp_path: Path) -> None:
    admin.put_object(Bucket="models", Key="going/tiny.gguf", Body=LARGE)
    source = s3(path="going")
    source.files()
    admin.delete_object(Bucket="models", Key="going/tiny.gguf")
    assert problem(lambda: source.fetch(tmp_path, ignore, ["tiny.gguf"]))[:2] == ("gone", "path")


def error(code: str, **more: str) -> bytes:
    rest = "".join(f"<{name}>{value}</{name}>" for name, value in more.items())
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message>{rest}</Error>".encode()


REFUSALS = {
    "AccessDenied": (403, {}, "forbidden", "access_key", "may not read"),
    "InvalidAccessKeyId": (403, {}, "bad_key", "access_key", "knows no access key “AKIA1”"),
    "SignatureDoesNotMatch": (403, {}, "bad_secret", "token_secret", "secret key isn't the one"),
    "RequestTimeTooSkewed": (403, {"ServerTime": "2030-01-01T00:00:00Z"}, "clock_skew", "", "2030-01-01"),
    "AuthorizationHeaderMalformed": (400, {"Region": "eu-west-3"}, "wrong_region", "region", "eu-west-3"),
    "SlowDown": (503, {}, "busy", "", "Try again"),
    "ExpiredToken": (400, {}, "bad_key", "access_key", "expired"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_every_refusal_says_what_to_change(s3: S3, front: Front, code: str) -> None:
    status, more, short, field, words = REFUSALS[code]
    front.fault(Fault(status=status, body=error(code, **more), times=9, headers={"x-amz-request-id": "1"}))
    found = problem(s3().check)
    assert found[:2] == (short, field)
    assert words in found[2]


def test_a_real_server_looks_at_key_secret_and_rights(s3: S3, moto: str) -> None:
    key, secret = reader(moto, "models")
    stranger, other = reader(moto, "others")
    looking(moto, from_now=True)
    try:
        assert s3(access_key=key, token=secret).files()
        assert problem(s3(access_key="AKIANOBODY").check)[:2] == ("bad_key", "access_key")
        assert problem(s3(access_key=key).check)[:2] == ("bad_secret", "token_secret")
        assert problem(s3(access_key=stranger, token=other).check)[:2] == ("forbidden", "access_key")
    finally:
        looking(moto, from_now=False)


def reader(moto: str, bucket: str) -> tuple[str, str]:
    """The access key of somebody who may read this bucket."""
    iam = owner("iam", moto)
    user = f"{bucket}-{time.monotonic_ns()}"
    iam.create_user(UserName=user)
    all_of_it = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    rights = {"Effect": "Allow", "Action": "s3:*", "Resource": all_of_it}
    document = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
    iam.put_user_policy(UserName=user, PolicyName="read", PolicyDocument=document)
    made = iam.create_access_key(UserName=user)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


def looking(moto: str, *, from_now: bool) -> None:
    """Whether the server looks at signatures and rights."""
    let_through = b"0" if from_now else b"inf"
    httpx2.post(f"{moto}/moto-api/reset-auth", content=let_through).raise_for_status()


def test_without_a_key_nothing_is_signed(
    s3: S3, front: Front, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "machine")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert problem(s3(access_key="", token=None).check)[:2] == ("forbidden", "access_key")
    admin.create_bucket(Bucket="public", ACL="public-read")
    admin.put_object(Bucket="public", Key="tiny.gguf", Body=LARGE, ACL="public-read")
    assert s3(bucket="public", path="", access_key="", token=None).check().facts
    assert not any("Authorization" in one.headers for one in front.passed)


def test_what_is_not_there_is_said_at_its_setting(s3: S3, front: Front) -> None:
    assert problem(s3(bucket="nothing").check)[:2] == ("no_bucket", "bucket")
    assert problem(s3(bucket="No!").check)[:2] == ("no_bucket", "bucket")
    assert problem(s3(path="models/none").check)[:2] == ("no_path", "path")
    code, field, said = problem(s3(path="models/tiny/tiny.gguf").check)
    assert (code, field) == ("no_path", "path")
    assert "“models/tiny” as path and “tiny.gguf” as file" in said
    assert problem(s3(file="other.gguf").check)[:2] == ("no_file", "file")
    assert problem(s3(path="folder").check)[:2] == ("no_model", "path")
    assert problem(s3(token=None).check)[:2] == ("bad_secret", "token_secret")


def test_what_is_no_s3_is_said(s3: S3, front: Front) -> None:
    for status, body in ((200, b"<html>Welcome</html>"), (404, b"Not found"), (200, b'{"no": "xml"}')):
        front.faults = [Fault(status=status, body=body, times=9)]
        assert problem(s3().check)[:2] == ("not_s3", "url")
    for url in ("models.example", "ftp://models.example", "http://key:secret@models.example"):
        assert problem(s3(url=url).check)[:2] == ("malformed_url", "url")


def test_a_listing_without_end_is_not_kept_in_memory(
    s3: S3, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MOST", 10_000)
    for status in (200, 403):
        front.faults = [Fault(status=status, body=b"<ListBucketResult>" + b" " * 1_000_000, times=9)]
        assert problem(s3().check)[:2] == ("too_long", "url")


def test_pages_without_end_are_not_kept_in_memory(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "whole", lambda pieces, server: b"".join(pieces))
    monkeypatch.setattr(network, "MOST", 50)  # the names and tags of the folder's objects come to more
    assert problem(s3(path="folder").check)[:2] == ("too_many", "path")


def test_an_address_that_nobody_answers_at_is_said(s3: S3) -> None:
    assert problem(s3(url="http://127.0.0.1:9").check)[:2] == ("no_network", "url")
    assert problem(s3(url="http://nowhere.invalid").check)[:2] == ("no_network", "url")


@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://[fd00:ec2::254]", "http://0.0.0.0:1"])
def test_the_clouds_own_servers_are_never_asked(s3: S3, url: str) -> None:
    assert problem(s3(url=url).check)[:2] == ("address_refused", "url")


def test_a_name_that_leads_to_one_of_them_is_refused_too(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(2, 1, 6, "", ("169.254.169.254", 80))]
    with monkeypatch.context() as patched:
        patched.setattr("socket.getaddrinfo", lambda *_, **__: answer)
        assert problem(s3(url="http://harmless.example").check)[0] == "address_refused"


def test_the_operators_proxy_is_used_and_names_are_resolved_behind_it(
    s3: S3, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "<?xml version='1.0'?><ListBucketResult><Name>models</Name>{}</ListBucketResult>"
    listed = "<Contents><Key>a/b</Key><Size>1</Size><ETag>1</ETag></Contents>"
    front.fault(Fault("http://s3.invalid/models", status=200, body=page.format(listed).encode()))
    monkeypatch.setenv("http_proxy", front.url)
    assert [file.path for file in s3(url="http://s3.invalid", path="a").files()] == ["b"]
    assert problem(s3(url="http://169.254.169.254").check)[0] == "address_refused"
    monkeypatch.setenv("no_proxy", "s3.invalid")
    assert problem(s3(url="http://s3.invalid").check)[0] == "no_network"


def test_private_addresses_can_be_shut_off(front: Front) -> None:
    settings = {"kind": "s3", "bucket": "models", "url": front.url}
    source = source_for(settings, store=Path("/nowhere"), token=None, hub="", private=False)
    assert "SOURCES_ALLOW_PRIVATE" in problem(source.check)[2]
