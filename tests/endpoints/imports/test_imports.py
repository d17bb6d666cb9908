"""Versions imported from elsewhere: pinned, brought by a worker that may die, published as an upload is."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.refused import Refused
from endpoints import bell, importing, tidying
from endpoints.models import Event, ModelVersion, RegisteredModel, Secret, VersionDraft, VersionImport
from endpoints.models.registry import store
from endpoints.validation import Invalid, spec_from
from tests import make
from tests.endpoints.imports.importer import FILE, LARGE, MODEL_PY, REPO, TOKEN, WIDE, Died, Import
from tests.hub import Fault, Repo
from tests.model_files import gguf

pytestmark = pytest.mark.django_db


# ── what becomes of it ───────────────────────────────────────────────────────────────────────────
def test_a_repository_becomes_a_version_as_an_upload_does_and_says_where_from(tiny: Import) -> None:
    one = tiny.begun(draft_notes="x", notes="From the lab")
    assert (one.bytes_total, one.spec.revision) == (len(LARGE) + 6, REPO.commit)
    one = tiny.run(one)
    version = one.version
    assert version is not None
    assert (one.state, one.bytes_done, one.draft) == ("done", one.bytes_total, None)
    assert (version.number, version.kind, version.main, version.notes) == (1, "gguf", FILE, "From the lab")
    assert version.facts["architecture"] == "llama"
    assert [ancestor.label for ancestor in version.lineage] == [f"lab/tiny on Hugging Face at {REPO.commit}"]
    assert version.files[1]["sha256"] == hashlib.sha256(LARGE).hexdigest()
    assert (version.folder / FILE).read_bytes() == LARGE
    page = tiny.client.get("/projects/alpha/models/tiny/versions/1/").content.decode()
    assert REPO.commit in page
    assert "apache-2.0" in page
    went_on = tiny.client.get(f"/projects/alpha/models/tiny/imports/{one.pk}/")
    assert went_on["Location"] == "/projects/alpha/models/tiny/versions/1/"
    told = list(Event.objects.filter(kind__startswith="model.").order_by("pk").values_list("message", flat=True))
    assert f"imported from lab/tiny on Hugging Face at {REPO.commit}" in told[1]
    assert told[2] == "Published tiny v1, 2 files."


def test_it_stays_what_it_was_when_the_repository_moves_and_the_cache_is_evicted(
    tiny: Import, settings: Any
) -> None:
    one = tiny.begun()
    tiny.hub.repos["lab/tiny"] = Repo({FILE: b"GGUF, but another"})
    assert tiny.run(one).state == "failed", "the commit that was pinned is gone from this hub"
    tiny.hub.repos["lab/tiny"] = REPO
    one.refresh_from_db()
    one.retry(by=None, at=timezone.now())
    version = tiny.run(one).version
    assert version is not None
    for unit in (store() / "hub").glob("*/*"):
        os.utime(unit, (0, 0))
    settings.STORE_MAX_BYTES = 1
    assert tidying.tidy(at=timezone.now()), "what was fetched is only a cache"
    assert (version.folder / FILE).read_bytes() == LARGE


def test_pickles_are_looked_into_as_those_of_an_upload(tiny: Import) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    tiny.hub.repos["lab/tiny"] = Repo({"model.py": MODEL_PY, "weights/model.pkl": pickle.dumps(Evil())})
    version = tiny.run(tiny.begun()).version
    assert version is not None
    assert version.level == "bad"
    assert any("system" in note.text for note in version.findings)


def test_only_the_files_that_are_named_come(tiny: Import) -> None:
    assert "There is: README.md" in tiny.refused(only="*.safetensors")
    one = tiny.run(tiny.begun(only="*.gguf *.json"))
    assert [file["path"] for file in one.version.files] == [FILE]  # type: ignore[union-attr]


def test_files_that_make_no_version_are_refused_in_words_and_can_be_mended(tiny: Import) -> None:
    tiny.hub.repos["lab/tiny"] = Repo({"big-00001-of-00002.gguf": LARGE})
    one = tiny.run(tiny.begun())
    assert (one.state, one.reason) == ("failed", "incomplete")
    page = tiny.client.get(f"/projects/alpha/models/tiny/imports/{one.pk}/").content.decode()
    assert "Upload all its parts" in page
    assert one.draft is not None
    assert f"/drafts/{one.draft.pk}/" in page
    assert [upload.sha256 for upload in one.draft.files] == [hashlib.sha256(LARGE).hexdigest()]


# ── cut off, cancelled, tried again ──────────────────────────────────────────────────────────────
def test_another_worker_goes_on_where_one_was_killed(tiny: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gguf({"general.name": "Killed"}, WIDE)  # which no other test left in the store
    tiny.hub.repos["lab/tiny"] = Repo({FILE: data})
    one = tiny.begun()
    whole = importing.Report.__call__

    def die(report: importing.Report, done: int, total: int) -> None:
        whole(report, done, total)
        if done > len(data) // 3:
            raise Died

    monkeypatch.setattr(importing.Report, "__call__", die)
    with pytest.raises(Died):
        tiny.run(one)
    monkeypatch.undo()
    monkeypatch.setattr(bell, "send", lambda *_, **__: True)
    assert tiny.run(one).state == "running", "its lease says that somebody is at work"
    assert not importing.resume(at=tiny.clock())
    tiny.ahead += importing.LEASE * 2
    assert importing.resume(at=tiny.clock())
    assert tiny.run(one).state == "done"
    first, second = (asked.headers.get("Range", "bytes=0-") for asked in tiny.hub.asked("/cdn/"))
    assert first == "bytes=0-"
    assert int(second[len("bytes=") : -1]) > len(data) // 3


def test_bytes_that_are_not_what_the_source_declares_make_no_version(tiny: Import) -> None:
    tiny.hub.repos["lab/tiny"] = Repo({FILE: gguf({"general.name": "Damaged"}, WIDE)})
    one = tiny.begun()
    tiny.hub.fault(Fault("/cdn/", times=99, corrupt=True))
    one = tiny.run(one)
    assert one.version is None
    assert "sha256" in one.message or "digest" in one.message
    assert not ModelVersion.objects.exists()


def test_trouble_that_may_pass_is_tried_again_and_given_up_at_last(tiny: Import) -> None:
    one = tiny.begun()
    tiny.hub.fault(Fault("/api/models/", times=999, status=503))
    one = tiny.run(one)
    assert (one.state, one.lease_until) == ("running", None)
    assert one.message
    assert one.message in tiny.client.get(f"/projects/alpha/models/tiny/imports/{one.pk}/").content.decode()
    assert tiny.run(one).state == "running", "it waits before the next try"
    tiny.ahead += importing.GIVE_UP + importing.AGAIN
    assert tiny.run(one).state == "failed"
    assert Event.objects.get(kind="model.import_failed").message.endswith(one.message)


def test_cancelling_stops_the_worker_and_leaves_no_draft(tiny: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tiny.begun()
    write = importing.Report._write

    def cancel(report: importing.Report, *given: Any, **more: Any) -> None:
        if VersionDraft.objects.exists():
            tiny.client.post(f"/projects/alpha/models/tiny/imports/{one.pk}/cancel/")
        write(report, *given, **more)

    monkeypatch.setattr(importing.Report, "_write", cancel)
    one = tiny.run(one)
    assert (one.state, one.draft, one.version) == ("cancelled", None, None)
    assert not ModelVersion.objects.exists()
    page = tiny.client.get(f"/projects/alpha/models/tiny/imports/{one.pk}/").content.decode()
    assert f"<code>{REPO.commit}</code>" in page, "what it was stays to be read"
    with pytest.raises(Refused, match="over already"):
        one.cancel(by=None)
    with pytest.raises(Refused, match="failed can be tried again"):
        one.retry(by=None, at=timezone.now())


def test_the_model_or_the_draft_thrown_away_ends_it_too(tiny: Import) -> None:
    one = tiny.begun()
    one.draft.discard(by=None)  # type: ignore[union-attr]
    assert tiny.run(one).state == "cancelled"
    second = tiny.begun()
    tiny.model.discard(by=None)
    assert not importing.run(str(second.pk))


def test_an_import_is_forgotten_a_month_after_its_end_and_its_version_stays(tiny: Import) -> None:
    one, failed = tiny.run(tiny.begun()), tiny.begun()
    failed.fail("gone", "It is gone.", at=timezone.now())
    later = timezone.now() + timedelta(days=13)
    tidying.expire(later)
    assert VersionImport.objects.count() == 2
    tidying.expire(later + timedelta(days=30))
    assert VersionImport.objects.get().state == "cancelled", "the failed one went with its draft just now"
    tidying.expire(later + timedelta(days=60))
    assert not VersionImport.objects.exists()
    assert ModelVersion.objects.get() == one.version


def test_nothing_else_comes_into_the_draft_meanwhile_and_it_isnt_published(tiny: Import) -> None:
    draft = tiny.begun().draft
    assert draft is not None
    with pytest.raises(Refused, match="being imported"):
        draft.expect("model.py", 3, by=None)
    with pytest.raises(Refused, match="being imported"):
        draft.publish({"files": []}, by=None)
    assert tiny.client.get(f"/projects/alpha/models/tiny/drafts/{draft.pk}/").status_code == 302


def test_one_runs_at_a_time_and_the_next_is_rung_after_it(tiny: Import) -> None:
    first, second = tiny.begun(), tiny.begun(only="README.md")
    VersionImport.objects.filter(pk=first.pk).update(lease_until=timezone.now() + timedelta(hours=1))
    assert tiny.run(second).waits
    page = tiny.client.get("/projects/alpha/models/tiny/").content.decode()
    assert "Waits for its turn" in page
    VersionImport.objects.filter(pk=first.pk).update(lease_until=None)
    assert tiny.run(first).state == "done"
    assert importing.resume(at=timezone.now())
    assert tiny.run(second).state == "done"


def test_the_models_page_follows_an_import_until_its_version_is_there(tiny: Import) -> None:
    asks = 'hx-get="/projects/alpha/models/tiny/?part=versions"'
    one = tiny.begun()
    assert asks in tiny.client.get("/projects/alpha/models/tiny/").content.decode()
    part = tiny.client.get("/projects/alpha/models/tiny/?part=versions").content.decode()
    assert asks in part
    assert "Waits for its turn" in part
    assert "<html" not in part
    assert tiny.run(one).version is not None
    part = tiny.client.get("/projects/alpha/models/tiny/?part=versions").content.decode()
    assert "/projects/alpha/models/tiny/versions/1/" in part
    assert "hx-get" not in part


def test_the_form_begins_with_hugging_face_and_keeps_what_was_typed_for_other_kinds(tiny: Import) -> None:
    page = tiny.client.get(tiny.url).content.decode()
    assert 'name="model_id"' in page
    assert 'value="huggingface" id="id_kind_huggingface" checked' in page
    page = tiny.refused(**{"model_id": "", "git-url": "https://git.example.com/team/model.git"})
    assert 'name="git-url" value="https://git.example.com/team/model.git"' in page


# ── credentials and errors at their fields ───────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("answers", "field"),
    [
        ({"model_id": ""}, "model_id"),
        ({"model_id": "lab/nothing"}, "model_id"),
        ({"model_id": "lab/gated"}, "token_secret"),
        ({"revision": "no-such-branch"}, "revision"),
        ({"path": "nowhere"}, "path"),
        ({"kind": "git", "shown": "git", "url": "file:///etc"}, "url"),
        ({"kind": "s3", "shown": "s3", "bucket": ""}, "bucket"),
        ({"kind": "gcs", "shown": "gcs", "bucket": "No Bucket"}, "bucket"),
        ({"kind": "registry", "shown": "registry"}, "kind"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_begins(
    tiny: Import, answers: dict[str, str], field: str
) -> None:
    page = tiny.refused(**answers)
    assert f'href="#id_{field}' in page
    assert not VersionImport.objects.exists()
    assert not VersionDraft.objects.exists()


def test_a_credential_is_stored_chosen_used_and_told_to_nobody(tiny: Import) -> None:
    assert "The secret needs a value." in tiny.refused(model_id="lab/gated", go="secret", name="hub-token")
    page = tiny.post(model_id="lab/gated", go="secret", name="hub-token", value=TOKEN).content.decode()
    assert '<option value="hub-token" selected>' in page
    assert 'value="lab/gated"' in page, "what was typed stays"
    page += tiny.post(model_id="lab/gated", token_secret="hub-token", go="test").content.decode()
    assert "Reached just now" in page
    one = tiny.run(tiny.begun(model_id="lab/gated", token_secret="hub-token"))
    assert one.version is not None
    assert "hub-token" not in json.dumps(one.version.source)
    assert TOKEN not in page + json.dumps(one.source) + json.dumps(one.version.source)


def test_a_secret_is_kept_for_an_import_that_runs_or_may_be_tried_again(tiny: Import) -> None:
    Secret.store(tiny.project, "hub-token", TOKEN, by=make.user("alice"))
    one = tiny.begun(model_id="lab/gated", token_secret="hub-token")
    named = f"is used by the import of {one} into tiny"
    delete = "/projects/alpha/secrets/hub-token/delete/"
    assert named in tiny.client.post(delete, follow=True).content.decode()
    one.fail("gone", "It is gone.", at=timezone.now())
    assert named in tiny.client.post(delete, follow=True).content.decode()
    one.cancel(by=None)
    tiny.client.post(delete)
    assert not Secret.objects.exists()


def test_a_secret_that_is_gone_when_the_worker_needs_it_is_said_at_its_field(tiny: Import) -> None:
    Secret.store(tiny.project, "hub-token", TOKEN, by=make.user("alice"))
    one = tiny.begun(model_id="lab/gated", token_secret="hub-token")
    Secret.objects.all().delete()
    one = tiny.run(one)
    assert (one.state, one.field) == ("failed", "token_secret")
    answer = tiny.client.get(f"{tiny.url}?again={one.pk}")
    assert answer.status_code == 200
    again = answer.content.decode()
    assert 'id="id_token_secret_error"' in again
    assert 'value="lab/gated"' in again
    assert tiny.begun(again=str(one.pk)).state == "running"
    one.refresh_from_db()
    assert one.state == "cancelled", "what takes its place is enough"


# ── by the API ───────────────────────────────────────────────────────────────────────────────────
def test_a_program_begins_follows_and_gets_the_version(tiny: Import) -> None:
    source = {"kind": "huggingface", "model_id": "lab/tiny"}
    answer = tiny.call("post", "", {"source": source, "only": "*.gguf", "notes": "By a program"})
    assert answer.status_code == 202
    begun = answer.json()
    assert answer["Location"] == f"/api/v1/models/tiny/imports/{begun['id']}"
    assert (begun["state"], begun["waits"], begun["files"]) == ("running", True, 1)
    tiny.run(VersionImport.objects.get())
    done = tiny.call("get", f"/{begun['id']}").json()
    assert (done["state"], done["version"], done["bytes_done"]) == ("done", 1, len(LARGE))
    assert [one["id"] for one in tiny.call("get", "").json()] == [begun["id"]]
    _, secret = make.key(tiny.project, "manage")
    headers = {"Authorization": f"Bearer {secret}"}
    version = Client().get("/api/v1/models/tiny/versions/1", headers=headers).json()
    assert version["imported_from"]["revision"] == REPO.commit
    assert tiny.call("post", f"/{begun['id']}/cancel").status_code == 409
    assert tiny.call("post", f"/{begun['id']}/retry").status_code == 409


def test_sent_again_it_is_the_same_import(tiny: Import) -> None:
    page = tiny.client.get(tiny.url).content.decode()
    sending = re.search(r'name="sending" value="([^"]+)"', page)
    assert sending is not None
    answers = [tiny.post(sending=sending[1])["Location"] for _ in range(2)]
    assert answers[0] == answers[1]
    assert VersionImport.objects.count() == 1
    assert tiny.post(sending=sending[1], only="*.md")["Location"] != answers[0], (
        "answered otherwise, it is another"
    )
    body = {"source": {"kind": "huggingface", "model_id": "lab/tiny"}}
    first, again = (tiny.call("post", "", body, **{"Idempotency-Key": "a"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert first["Location"] == again["Location"]
    other = tiny.call("post", "", body | {"notes": "Another"}, **{"Idempotency-Key": "a"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert VersionImport.objects.count() == 3


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"kind": "huggingface", "model_id": "lab/gated"}, "source.token_secret"),
        ({"kind": "huggingface", "model_id": "lab/tiny", "bucket": "models"}, "source.bucket"),
        ({"kind": "s3", "bucket": "models", "access_key": "AKIA1"}, "source.token_secret"),
        ({"kind": "registry"}, "source.kind"),
        ({"kind": "gcs", "buckets": "models"}, "source.buckets"),
    ],
)
def test_a_program_is_told_which_field_to_mend(tiny: Import, source: dict[str, str], field: str) -> None:
    answer = tiny.call("post", "", {"source": source})
    assert answer.status_code == 422
    assert field in answer.json()["error"]["fields"]
    assert not VersionImport.objects.exists()


def test_what_is_no_fields_fault_is_told_as_when_a_deployment_asks(tiny: Import) -> None:
    source = {"kind": "huggingface", "model_id": "lab/tiny"}
    tiny.hub.fault(Fault("/api/models/", times=999, status=503))
    asked = tiny.call("post", "", {"source": source}).json()["error"]
    with pytest.raises(Invalid) as refused:
        spec_from({"name": "tiny", "source": source}, tiny.project)
    assert asked["fields"]["source"] == refused.value.errors["source"]
    assert asked["fields"].keys() == {"source"}


def test_a_shared_model_is_imported_into_by_nobody(tiny: Import) -> None:
    RegisteredModel.objects.create(project=None, name="shared")
    page = tiny.client.post(tiny.url.replace("tiny", "shared"), {"kind": "huggingface", "model_id": "lab/tiny"})
    assert "Every project shares this model" in page.content.decode()
    assert not VersionImport.objects.exists()
