"""The registry's verbs, pages and API: versions that never change, whose numbers never come back."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.refused import Refused
from endpoints import inspecting, receiving, tidying
from endpoints.models import Endpoint, ModelVersion, RegisteredModel, Revision, Upload, VersionDraft
from endpoints.models.registry import store
from endpoints.origin import source_of
from endpoints.sources import store as storage
from endpoints.spec import SourceSpec
from tests import make
from tests.model_files import gguf

pytestmark = pytest.mark.django_db
MODEL = b"class Model:\n    def load(self, path): ...\n    def predict(self, inputs): return inputs\n"
FOLDER = {
    "model.py": MODEL,
    "requirements.txt": b"numpy\n",
    "weights/model.safetensors": b"\x02" + b"\0" * 7 + b"{}",
}


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def tiny() -> RegisteredModel:
    return RegisteredModel.open(make.project(), "tiny", by=make.user("alice"), title="Tiny one")


def filled(model: RegisteredModel, files: dict[str, bytes], **more: Any) -> VersionDraft:
    draft = VersionDraft.begin(model, by=None, **more)
    for path, data in files.items():
        receiving.place_whole(draft, path, SimpleUploadedFile("x", data), len(data), by=None, at=timezone.now())
    return draft


def published(model: RegisteredModel, files: dict[str, bytes] | None = None, **more: Any) -> ModelVersion:
    draft = filled(model, files or FOLDER | {"config.json": json.dumps({"n": str(more)}).encode()}, **more)
    return draft.publish(inspecting.look(draft), by=None)


def deployed(model: RegisteredModel, number: int, name: str = "demo") -> Endpoint:
    make.region()
    make.instance_type()
    spec = make.spec(name, source=SourceSpec(kind="registry", model=model.name, version=number))
    return Endpoint.launch(model.project, spec, by=None)  # type: ignore[arg-type]


# ── versions ────────────────────────────────────────────────────────────────────────────────────
def test_a_folder_becomes_a_version_that_a_deployment_reads_where_it_lies(tiny: RegisteredModel) -> None:
    version = published(tiny)
    assert (version.number, version.kind, version.main, version.level) == (1, "model_py", "model.py", "ok")
    assert {note.path for note in version.layout.notes} == {*FOLDER, "config.json"}  # type: ignore[union-attr]
    source = source_of(SourceSpec(kind="registry", model="tiny", version=1), tiny.project)  # type: ignore[arg-type]
    found = source.check("python")
    assert sorted(file.path for file in found.files) == sorted([*FOLDER, "config.json"])
    here = source.at_hand(store(), [file.path for file in found.files])
    assert here is not None, "its files are read once more before each start"
    assert (version.folder / "weights/model.safetensors").read_bytes() == FOLDER["weights/model.safetensors"]
    assert not VersionDraft.objects.exists()


def test_a_gguf_in_a_folder_is_deployed_by_its_path(tiny: RegisteredModel) -> None:
    version = published(tiny, {"quantized/a.gguf": gguf({}), "README.md": b"# Tiny"})
    assert (version.kind, version.main, version.facts["architecture"]) == ("gguf", "quantized/a.gguf", "llama")
    found = source_of(SourceSpec(kind="registry", model="tiny", version=1), tiny.project).check()  # type: ignore[arg-type]
    assert found.default_file == "quantized/a.gguf"


def test_a_number_is_never_used_again(tiny: RegisteredModel) -> None:
    published(tiny)
    published(tiny).discard(by=None)
    assert published(tiny).number == 3


def test_a_draft_with_a_file_on_its_way_or_none_is_not_published(tiny: RegisteredModel) -> None:
    draft = VersionDraft.begin(tiny, by=None)
    with pytest.raises(Refused, match="no file yet"):
        inspecting.look(draft)
    draft.expect("weights/a.bin", 9, by=None)
    with pytest.raises(Refused, match=r"weights/a\.bin.*not here whole"):
        inspecting.look(draft)


def test_files_that_change_while_they_are_looked_at_are_looked_at_again(tiny: RegisteredModel) -> None:
    draft = filled(tiny, FOLDER)
    looked = inspecting.look(draft)
    receiving.remove(draft.uploads.get(path="requirements.txt"))
    with pytest.raises(Refused, match="changed meanwhile"):
        draft.publish(looked, by=None)
    assert not ModelVersion.objects.exists()


def test_a_draft_is_published_once(tiny: RegisteredModel) -> None:
    draft = filled(tiny, FOLDER)
    looked = inspecting.look(draft)
    VersionDraft.objects.get(pk=draft.pk).publish(looked, by=None)
    with pytest.raises(Refused, match="published or thrown away"):
        draft.publish(looked, by=None)


def test_a_damaged_gguf_and_half_of_a_split_one_are_refused_in_words(tiny: RegisteredModel) -> None:
    with pytest.raises(Refused, match=r"a\.gguf"):
        inspecting.look(filled(tiny, {"a.gguf": b"GGUF and nothing more"}))
    with pytest.raises(Refused, match="part of the split"):
        inspecting.look(filled(tiny, {"a-00001-of-00002.gguf": gguf({})}))


def test_a_dangerous_pickle_is_told_on_the_versions_page(tiny: RegisteredModel) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    version = published(tiny, FOLDER | {"weights/old.bin": pickle.dumps(Evil())})
    assert version.level == "bad"
    page = as_(make.user("alice")).get(f"/projects/alpha/models/tiny/versions/{version.number}/").content.decode()
    assert "posix.system" in page
    assert "It can&#x27;t be loaded as it is." in page or "It can't be loaded as it is." in page


# ── lineage, use and deletion ───────────────────────────────────────────────────────────────────
def test_a_lineage_is_a_chain_that_outlives_what_it_names(tiny: RegisteredModel) -> None:
    base = published(tiny, origin="org/base at 0123abc")
    tuned = published(tiny, parent=base, origin="training run 42")
    small = published(tiny, parent=tuned)
    assert [one.label for one in small.lineage] == ["tiny v2", "training run 42", "tiny v1", "org/base at 0123abc"]
    page = as_(make.user("alice")).get("/projects/alpha/models/tiny/versions/3/").content.decode()
    assert "/projects/alpha/models/tiny/versions/2/" in page
    tuned.discard(by=None)
    small.refresh_from_db()
    assert [(one.label, one.version) for one in small.lineage] == [("tiny v2", None)]


def test_a_version_in_use_is_not_deleted_and_says_by_what(tiny: RegisteredModel) -> None:
    first, second = published(tiny), published(tiny, notes="better")
    endpoint = deployed(tiny, 1)
    with pytest.raises(Refused, match=r"tiny v1 is used by demo r1\. Deploy"):
        first.discard(by=None)
    with pytest.raises(Refused, match="demo r1"):
        tiny.discard(by=None)
    second.discard(by=None)
    Endpoint.objects.filter(pk=endpoint.pk).update(deleted_at=timezone.now())
    first.discard(by=None)
    tiny.discard(by=None)
    kinds = set(tiny.project.events.values_list("kind", flat=True))  # type: ignore[union-attr]
    assert {"model.created", "model.version_published", "model.version_deleted", "model.deleted"} <= kinds


def test_an_old_revision_that_neither_serves_nor_starts_holds_nothing(tiny: RegisteredModel) -> None:
    first = published(tiny)
    endpoint = deployed(tiny, 1)
    newer = make.spec("demo", source=SourceSpec(kind="registry", model="other", version=1))
    revision = Revision.objects.create(
        endpoint=endpoint, number=2, spec=newer.to_dict(), instance_type=make.instance_type()
    )
    assert [str(one) for one in first.used_by()] == ["demo r1"], "it is being deployed"
    endpoint.deployments.update(revision=revision)
    assert first.used_by() == []


def test_shared_models_are_read_only(tiny: RegisteredModel) -> None:
    shared = RegisteredModel.objects.create(name="everyones")
    version = ModelVersion.objects.create(model=shared, number=1, path="t", files=[], size_bytes=1)
    both: tuple[Any, ...] = (version, shared)
    for kept in both:
        with pytest.raises(Refused, match="no project changes it"):
            kept.discard(by=None)
    with pytest.raises(Refused, match="no project changes it"):
        VersionDraft.begin(shared, by=None)
    with pytest.raises(Refused, match="already"):
        RegisteredModel.open(make.project(), "everyones", by=None)
    client = as_(make.user("alice"))
    page = client.get("/projects/alpha/models/everyones/").content.decode()
    assert "Every project shares this model" in page
    assert "New version" not in page
    assert client.post("/projects/alpha/models/everyones/", {"title": "Mine"}).status_code == 422


# ── what goes from the disk ─────────────────────────────────────────────────────────────────────
def test_files_of_a_deleted_version_go_but_for_what_another_holds(tiny: RegisteredModel) -> None:
    first, second = published(tiny), published(tiny, FOLDER | {"weights/more.bin": b"more"})
    own = storage.blob_path(store(), hashlib.sha256(b"more").hexdigest())
    shared = storage.blob_path(store(), hashlib.sha256(MODEL).hexdigest())
    folder = second.folder
    second.discard(by=None)
    tidying.tidy(at=timezone.now())
    assert (folder.exists(), own.exists(), shared.exists(), first.folder.exists()) == (False, False, True, True)


def test_drafts_and_uploads_expire_with_their_bytes(tiny: RegisteredModel) -> None:
    draft = filled(tiny, FOLDER)
    upload = draft.expect("weights/late.bin", 9, by=None)
    receiving.receive(upload, SimpleUploadedFile("x", b"half"), 4, offset=0, sha256=None, at=timezone.now())
    folder, partial = draft.folder, storage.partial_path(store(), upload.key)
    assert partial.exists()
    tidying.tidy(at=timezone.now() + timedelta(days=3))
    assert (Upload.objects.filter(sha256="").exists(), partial.exists(), folder.exists()) == (False, False, True)
    tidying.tidy(at=timezone.now() + timedelta(days=15))
    assert (VersionDraft.objects.exists(), folder.exists()) == (False, False)


def test_room_is_made_around_what_endpoints_use(
    tiny: RegisteredModel, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = deployed(tiny, 1)
    places = {name: store() / "hub" / f"org--{name}" / "0123" for name in ("used", "unused")}
    for name, place in places.items():
        place.mkdir(parents=True)
        (place / "model.gguf").write_bytes(name.encode() * 999)
        os.utime(place, (0, 0))
    Revision.objects.filter(endpoint=endpoint).update(model_path=str(places["used"] / "model.gguf"))
    settings.STORE_MAX_BYTES = 1
    assert [gone.path for gone in tidying.tidy(at=timezone.now())] == ["hub/org--unused/0123"]
    assert places["used"].exists()
    assert "Evicted hub/org--unused/0123" in caplog.text


# ── pages and API ───────────────────────────────────────────────────────────────────────────────
def test_a_model_is_registered_filled_and_published_without_scripts() -> None:
    make.project()
    client = as_(make.user("alice"))
    assert "From a shell" in client.get("/projects/alpha/models/").content.decode()
    wrong = client.post("/projects/alpha/models/new/", {"name": "two words"})
    assert (wrong.status_code, "id_name_error" in wrong.content.decode()) == (422, True)
    client.post("/projects/alpha/models/new/", {"name": "tiny", "license": "MIT", "description": "Small."})
    assert client.post("/projects/alpha/models/new/", {"name": "tiny"}).status_code == 422
    assert client.get("/projects/alpha/models/").status_code == 200, "a model without a version yet"
    page = client.post("/projects/alpha/models/tiny/drafts/", {"origin": "run 7"})["Location"]
    taken = client.post(page, {"file": SimpleUploadedFile("model.gguf", gguf({}))})
    assert taken["Location"] == page
    again = client.post(page, {"file": SimpleUploadedFile("model.gguf", gguf({}))})
    assert (again.status_code, "in this draft already" in again.content.decode()) == (422, True)
    assert client.post(page, {"path": "x"}).status_code == 422
    assert "GGUF weights." in client.get(page).content.decode()
    version = client.post(f"{page}publish/")["Location"]
    shown = client.get(version).content.decode()
    assert "model.gguf" in shown
    assert "run 7" in shown
    assert (
        "Nothing was deleted"
        in client.post(f"{version}delete/", {"confirm": "tiny"}, follow=True).content.decode()
    )
    assert (
        "not used again" in client.post(f"{version}delete/", {"confirm": "tiny v1"}, follow=True).content.decode()
    )
    client.post("/projects/alpha/models/tiny/delete/", {"confirm": "tiny"})
    assert not RegisteredModel.objects.exists()


def test_a_file_can_be_taken_out_and_a_draft_thrown_away(tiny: RegisteredModel) -> None:
    draft = filled(tiny, FOLDER)
    client = as_(make.user("alice"))
    page = f"/projects/alpha/models/tiny/drafts/{draft.pk}/"
    client.post(f"{page}files/{draft.uploads.get(path='model.py').pk}/remove/")
    assert not (draft.folder / "model.py").exists()
    assert "is removed" in client.get(page).content.decode()
    client.post(f"{page}discard/")
    assert client.get(page).status_code == 404


def test_the_list_is_searched_and_the_storage_page_names_no_others(tiny: RegisteredModel) -> None:
    published(tiny)
    theirs = RegisteredModel.open(make.project("Beta", make.user("charlie")), "secret-one", by=None)
    published(theirs, {"a.gguf": gguf({})})
    client = as_(make.user("alice"))
    assert "tiny" in client.get("/projects/alpha/models/?q=TINY").content.decode()
    assert "No model matches" in client.get("/projects/alpha/models/?q=nothing").content.decode()
    page = client.get("/projects/alpha/models/storage/").content.decode()
    assert "tiny v1" in page
    assert "secret-one" not in page


def test_the_api_tells_of_models_and_versions_what_the_pages_do(tiny: RegisteredModel) -> None:
    headers = {"Authorization": f"Bearer {make.key(tiny.project, 'manage')[1]}"}  # type: ignore[arg-type]
    base = published(tiny)

    def call(method: str, path: str, body: Any = None) -> Any:
        answer = Client().generic(
            method, f"/api/v1/models{path}", json.dumps(body or {}), "application/json", headers=headers
        )
        return answer.status_code, answer.json() if answer.content else None

    assert call("GET", "?q=tiny")[1]["items"][0]["versions"] == [1]
    assert call("POST", "", {"name": "tiny"})[0] == 409
    assert call("POST", "", {"name": "x", "color": "red"})[0] == 422
    for text in ("\0", "\ud800"):
        assert call("POST", "", {"name": "x", "title": text})[0] == 422
        assert call("POST", "/tiny/drafts", {"origin": text})[0] == 422
    assert call("GET", "/%00")[0] == call("GET", "/tiny/versions/99999999999")[0] == 404
    assert call("PATCH", "/tiny", {"license": "MIT"})[1]["license"] == "MIT"
    status, draft = call("POST", "/tiny/drafts", {"made_from_version": base.number, "origin": "run 7"})
    assert (status, draft["made_from"]) == (201, "tiny v1")
    assert call("POST", "/tiny/drafts", {"made_from_version": 9})[0] == 422
    found = VersionDraft.objects.get(pk=draft["id"])
    receiving.place_whole(
        found, "a.gguf", SimpleUploadedFile("x", gguf({})), len(gguf({})), by=None, at=timezone.now()
    )
    assert call("GET", f"/tiny/drafts/{draft['id']}")[1]["uploads"][0]["path"] == "a.gguf"
    status, version = call("POST", f"/tiny/drafts/{draft['id']}/publish")
    assert (status, version["number"], version["lineage"]) == (201, 2, ["run 7", "tiny v1"])
    assert version["report"][0]["level"] == "ok"
    deployed(tiny, 2)
    assert call("GET", "/tiny/versions/2")[1]["used_by"] == ["demo r1"]
    assert call("DELETE", "/tiny/versions/2")[0] == 409
    assert call("DELETE", "/tiny/versions/1")[0] == 204
    assert call("GET", "/tiny/versions/1")[0] == 404
