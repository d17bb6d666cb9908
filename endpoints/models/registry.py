"""The model registry: named models with immutable, numbered versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.db.models import Exists, F, OuterRef, Q, Subquery
from django.utils import timezone

from accounts.models import Project, User
from accounts.refused import Refused
from accounts.roles import Right
from endpoints import bell
from endpoints.models.deployment import Deployment, DeploymentState, Instance
from endpoints.models.endpoint import By, Revision
from endpoints.models.event import Event, Severity, actor_fields
from endpoints.sources.layout import Layout
from endpoints.sources.note import LEVELS, Note, worst
from endpoints.sources.registry import main_of
from endpoints.spec import SourceKind

RESERVED = frozenset({"new", "storage"})  # pages of the registry itself
LONGEST_CHAIN = 50
TIDY_EXPIRES = 300.0  # seconds


def store() -> Path:
    """Where models lie on this machine."""
    return Path(settings.DATA_DIR) / "models"


class RegisteredModelQuerySet(models.QuerySet["RegisteredModel"]):
    def usable_in(self, project: Project) -> RegisteredModelQuerySet:
        """The project's own and those that every project shares."""
        return self.filter(Q(project=project) | Q(project=None))

    def visible_to(self, user: Any) -> RegisteredModelQuerySet:
        return self.filter(Q(project=None) | Q(project__in=Project.objects.where(user, Right.VIEW)))

    def named(self, name: str, project: Project) -> RegisteredModel | None:
        """The project's own before the shared one of the same name, as a deployment finds it."""
        if "\0" in name:
            return None  # which no text of the database holds
        return self.usable_in(project).filter(name=name).order_by(F("project").asc(nulls_last=True)).first()

    def matching(self, text: str) -> RegisteredModelQuerySet:
        """Those with the text in what people call them."""
        return self.filter(Q(name__icontains=text) | Q(title__icontains=text) | Q(description__icontains=text))


class RegisteredModel(models.Model):
    """A model by name; without a project it is shared by all, and changed by none."""

    project = models.ForeignKey(Project, models.CASCADE, null=True, blank=True, related_name="models")
    name = models.SlugField(max_length=80)
    title = models.CharField(max_length=120, blank=True)
    description = models.TextField(blank=True)
    license = models.CharField(max_length=80, blank=True)
    last_number = models.PositiveIntegerField(default=0, editable=False)  # a deleted version's is never used again
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = RegisteredModelQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="model_name_once", nulls_distinct=False)
        ]

    def __str__(self) -> str:
        return self.title or self.name

    @classmethod
    @transaction.atomic
    def open(cls, project: Project, name: str, *, by: By, **about: str) -> RegisteredModel:
        """A model without a version yet; `about`: title, description, license.

        Raises Refused: name taken here, or by a model that all share.
        """
        if name in RESERVED:
            raise Refused(
                f"“{name}” is a word of the console's own. Choose another.", field="name", code="invalid"
            )
        taken = Refused(
            f"There is a model “{name}” already. Choose another name.", field="name", code="name_taken"
        )
        if cls.objects.filter(project=None, name=name).exists():
            raise taken
        try:
            with transaction.atomic():
                made = cls.objects.create(
                    project=project, name=name, created_by=actor_fields(by)["actor"], **about
                )
        except IntegrityError:
            raise taken from None
        made.record("model.created", f"Registered the model “{name}”.", by=by)
        return made

    @transaction.atomic
    def describe(self, *, by: By, **texts: str) -> bool:
        """Change title, description or license; versions stay as they are. False when nothing differs."""
        self.refuse_if_shared()
        changed = [name for name, text in texts.items() if getattr(self, name) != text]
        for name in changed:
            setattr(self, name, texts[name])
        if changed:
            self.save(update_fields=changed)
            self.record("model.described", f"Changed {', '.join(changed)} of the model “{self.name}”.", by=by)
        return bool(changed)

    @transaction.atomic
    def discard(self, *, by: By) -> None:
        """Delete it with all its versions and drafts. Raises Refused while a living endpoint uses one."""
        self.refuse_if_shared()
        RegisteredModel.objects.select_for_update().get(pk=self.pk)
        _refuse_in_use(f"“{self.name}”", self.used_by())
        self.record("model.deleted", f"Deleted the model “{self.name}”.", by=by, severity=Severity.WARN)
        self.delete()
        tidy_soon()

    def refuse_if_shared(self) -> None:
        if self.project_id is None:
            raise Refused("Every project shares this model, so no project changes it.", code="shared")

    def used_by(self, within: Project | None = None) -> list[Revision]:
        """The current revisions that name any version of it; `within` a project, or everywhere."""
        return using(self, within=within)

    def record(self, kind: str, message: str, *, by: By, severity: Severity = Severity.INFO) -> None:
        if self.project:
            fields = {"kind": kind, "message": message, "severity": severity} | actor_fields(by)
            Event.objects.create(project=self.project, **fields)


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage: a version, one that was deleted since (None), or where the first came from."""

    label: str
    version: ModelVersion | None = None


class ModelVersion(models.Model):
    """One immutable version: its files with size and digest, what their headers say, what it was made from."""

    model = models.ForeignKey(RegisteredModel, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    path = models.CharField(max_length=1000)  # of the main file, relative to the data folder
    files = models.JSONField()  # [{"path", "size", "sha256"}], by paths relative to the version's folder
    size_bytes = models.BigIntegerField()
    facts = models.JSONField(default=dict)  # GGUFFacts.to_dict()
    kind = models.CharField(max_length=20, default="gguf")  # see endpoints.sources.layout
    report = models.JSONField(default=dict)  # {"layout": Layout.to_dict(), "scan": [Note, …]}, as of its making
    notes = models.TextField(blank=True)
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="children")
    parent_name = models.CharField(max_length=120, blank=True)  # outlives the parent
    origin = models.CharField(max_length=500, blank=True)  # a repository at a commit, a training run
    source = models.JSONField(default=dict, blank=True)  # of an import: see version_import.lineage_of
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="model_version_once")]

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number}"

    @property
    def main(self) -> str:
        """The main file by its path within the version."""
        return main_of(self.path, [str(file["path"]) for file in self.files])

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return Path(settings.DATA_DIR) / self.path.removesuffix(self.main)

    @property
    def layout(self) -> Layout | None:
        return Layout.from_dict(self.report["layout"]) if self.report.get("layout") else None

    @property
    def findings(self) -> list[Note]:
        """What was said of its files when it was made, the worst first; looking into one outweighs its name."""
        scanned = [Note(**note) for note in self.report.get("scan", [])]
        looked_into = {note.path for note in scanned}
        named = [note for note in (self.layout.notes if self.layout else ()) if note.path not in looked_into]
        return sorted([*scanned, *named], key=lambda note: (-LEVELS.index(note.level), note.path))

    @property
    def level(self) -> str:
        """The worst of what is said of its files."""
        return worst(self.findings)

    @property
    def lineage(self) -> list[Ancestor]:
        """What it was made from, the nearest first; ends where nothing more is said."""
        chain: list[Ancestor] = []
        version: ModelVersion | None = self
        while version and len(chain) < LONGEST_CHAIN:
            if version.origin:
                chain.append(Ancestor(version.origin))
            above = version.parent
            if above or version.parent_name:
                chain.append(Ancestor(version.parent_name or str(above), above))
            version = above
        return chain

    def used_by(self, within: Project | None = None) -> list[Revision]:
        return using(self.model, self.number, within=within)

    @transaction.atomic
    def discard(self, *, by: By) -> None:
        """Delete it; its files go where no other version holds them. Raises Refused while it is in use."""
        self.model.refuse_if_shared()
        RegisteredModel.objects.select_for_update().get(pk=self.model_id)
        _refuse_in_use(str(self), self.used_by())
        self.model.record("model.version_deleted", f"Deleted {self}.", by=by, severity=Severity.WARN)
        self.delete()
        tidy_soon()


def tidy_soon() -> None:
    """Have the files removed that nothing names any more; a timer gets there too."""
    transaction.on_commit(lambda: bell.send("endpoints.tidy_store", queue="slow", expires=TIDY_EXPIRES))


def visible_version(project: Project, name: str, number: int | None) -> ModelVersion | None:
    """A version that the project may use, by its model's name; the newest without a number."""
    model = RegisteredModel.objects.named(name, project)
    versions = model.versions.select_related("model", "parent__model") if model else ModelVersion.objects.none()
    return (versions.filter(number=number) if number else versions.order_by("-number")).first()


def using(model: RegisteredModel, number: int | None = None, *, within: Project | None = None) -> list[Revision]:
    """The current revisions that name the model, or one version of it."""
    named = Revision.objects.filter(
        spec__source__kind=SourceKind.REGISTRY.value, spec__source__model=model.name
    ).select_related("endpoint__project")
    if number is not None:
        named = named.filter(spec__source__version=number)
    if project := within or model.project:
        named = named.filter(endpoint__project=project)
    return list(current(named).order_by("endpoint__name", "-number"))


def current(revisions: models.QuerySet[Revision]) -> models.QuerySet[Revision]:
    """Of these, those of living endpoints that serve, run, are being deployed or would be started."""
    newest = Revision.objects.filter(endpoint=OuterRef("endpoint")).order_by("-number").values("pk")[:1]
    deploying = Deployment.objects.filter(revision=OuterRef("pk"), state=DeploymentState.RUNNING)
    running = Instance.objects.live().filter(revision=OuterRef("pk"))
    return revisions.filter(endpoint__deleted_at=None).filter(
        Q(pk=Subquery(newest)) | Q(pk=F("endpoint__serving_revision")) | Exists(deploying) | Exists(running)
    )


def _refuse_in_use(what: str, users: Sequence[Revision]) -> None:
    if users:
        named = ", ".join(str(revision) for revision in users[:5])
        more = f" and {len(users) - 5} more" if len(users) > 5 else ""
        raise Refused(f"{what} is used by {named}{more}. Deploy them without it first.", code="in_use")
