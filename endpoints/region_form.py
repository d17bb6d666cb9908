"""The form of a region: where instances run, and how that place is reached. Secrets are paths of files on the
server, never values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.db import transaction
from django.http import QueryDict

from accounts.models import User
from accounts.refused import Refused
from endpoints import region_audit
from endpoints.addresses import literal
from endpoints.models import InstanceType, Region
from endpoints.models.catalogue import RuntimeKind
from endpoints.regions import config_problem
from endpoints.spec import VERSIONS, Framework
from endpoints.wizard.fields import PLAIN

HOST: Final = {
    "name": "Name",
    "url": "Address of its engine",
    "ca": "File of the authority (CA)",
    "cert": "File of our certificate",
    "key": "File of our key",
    "address": "Address of its instances",
    "models": "Folder of models there",
    "network": "Network to join",
    "gpus": "GPUs: how many, or their ids",
}
MOST_HOSTS: Final = 50
IMAGES: Final = tuple(
    f"{engine}:{version}" if version else str(engine)
    for engine in Framework.values
    if engine != Framework.CUSTOM
    for version in VERSIONS.get(engine, ("",))
)
CLUSTER: Final = (
    *("kubeconfig", "context", "namespace", "installation", "cache", "storage"),
    *("fetch_image", "hub", "console_url", "gpu_resource", "runtime_class"),
)
PLACE: Final = ("namespace", "installation")  # where, and by which name, its things are found again
SWITCHES: Final = ("allow_root", "sealed")  # of Docker
LISTS: Final = ("ingress", "egress", "pull_secrets", "dcgm")
SEVERAL: Final = "Several with commas between."
EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def _text(label: str, hint: str = "", example: str = "") -> forms.CharField:
    widget = forms.TextInput(attrs=PLAIN | ({"placeholder": example} if example else {}))
    return forms.CharField(label=label, required=False, max_length=500, help_text=hint, widget=widget)


class RegionForm(forms.ModelForm[Region]):
    """`config` is put together from the fields of the chosen kind; what another kind was told is left out."""

    kubeconfig = _text("Kubeconfig", "A path on the server. Empty: the account of the console's own pod.")
    context = _text("Context", "Of the kubeconfig. Empty: the present one.")
    namespace = _text("Namespace", "Where instances are made. Empty: the console's own.", "inference")
    cache = _text("Claim for models", "A PersistentVolumeClaim that keeps models. Empty: each pod fetches.")
    storage = _text("Largest model folder", "Of a pod, without a claim.", "200Gi")
    fetch_image = _text("Image that fetches", "The console's own image. Empty: tir-console:latest.")
    installation = _text("Name of this console", "Two consoles in one namespace need two. Empty: tir.", "tir")
    hub = _text("Hugging Face Hub", "That pods reach, or a mirror. Empty: the console's own.")
    console_url = _text("Address of the console", "By which pods fetch models of the registry. Empty: its own.")
    gpu_resource = _text("Resource of a GPU", "Empty: nvidia.com/gpu.")
    runtime_class = _text("Runtime class", "Of pods, where the cluster has one.", "nvidia")
    ingress = _text("Who may reach instances", f"Namespaces and networks. {SEVERAL}", "tir-system")
    egress = _text("Whom instances may reach", f"The same way. Empty: everybody. {SEVERAL}", "10.0.0.0/8")
    pull_secrets = _text("Pull secrets", f"Names of Secrets that are there already. {SEVERAL}")
    dcgm = _text("DCGM exporters", f"Addresses of NVIDIA's exporters. {SEVERAL}")
    allow_root = forms.BooleanField(label="Images whose user is root may run as root", required=False)
    sealed = forms.BooleanField(
        label="Instances reach no network", required=False, help_text="Only with this machine's own engine."
    )

    class Meta:
        model = Region
        fields = ("name", "slug", "runtime", "enabled")
        labels = {"slug": "Short name", "runtime": "Kind", "enabled": "Offered for new endpoints"}
        help_texts = {"slug": "Part of every address of its endpoints, so it can't change later."}

    def __init__(self, data: QueryDict | None = None, *, instance: Region | None = None) -> None:
        config = dict(instance.config) if instance else {}
        initial = {name: config.get(name, "") for name in (*CLUSTER, *SWITCHES)}
        initial |= {name: ", ".join(config.get(name) or ()) for name in LISTS}
        super().__init__(data, instance=instance, initial=initial)
        if instance and instance.pk:
            del self.fields["slug"]
        self.old = config
        self.hosts = _posted_hosts(data) if data is not None else [_host(one) for one in config.get("hosts", [])]
        self.images = _posted_images(data) if data is not None else dict(config.get("images", {}))
        self.pools = _posted_pools(data) if data is not None else _written_pools(config.get("instance_types", {}))
        self.pool_errors: dict[str, str] = {}

    def clean(self) -> dict[str, Any]:
        """Put the settings together and let the runtime judge them."""
        super().clean()
        kind = self.cleaned_data.get("runtime")
        config = self._config(str(kind))
        if self.instance.pk and kind != Region.objects.values_list("runtime", flat=True).get(pk=self.instance.pk):
            self._refuse_another()
        if kind == RuntimeKind.KUBERNETES:
            self._refuse_another_place()
            self._refuse_loopback()
        if kind and not self.errors and (problem := config_problem(kind, config)):
            self.add_error(None, problem)
        self.instance.config = config
        return self.cleaned_data

    @transaction.atomic
    def keep(self, *, by: User) -> Region:
        """Save it, with what was changed in the audit."""
        before = Region.objects.select_for_update().filter(pk=self.instance.pk).first()
        saved = self.save()
        if before is None:
            region_audit.created(saved, by=by)
        else:
            region_audit.changed(before, saved, by=by)
        return saved

    def _refuse_another(self) -> None:
        try:
            self.instance.refuse_another_runtime()
        except Refused as refused:
            self.add_error("runtime", str(refused))

    def _refuse_another_place(self) -> None:
        for name in PLACE if self.instance.pk else ():
            if (self.cleaned_data.get(name) or "") != (self.old.get(name) or ""):
                try:
                    self.instance.refuse_another_place(name)
                except Refused as refused:
                    self.add_error(name, str(refused))

    def _refuse_loopback(self) -> None:
        """Pods fetch models of the registry from the console: at this machine's loopback they find themselves."""
        given = self.cleaned_data.get("console_url")
        where = given or settings.CONSOLE_URL
        host = urlsplit(where if "//" in where else f"//{where}").hostname or ""
        here = literal(host)
        if host.endswith("localhost") or (here is not None and (here.is_loopback or here.is_unspecified)):
            whose = "" if given else "The console's own address is "
            self.add_error(
                "console_url",
                f"{whose}{where}{' leads' if given else ', which leads'} a pod to itself. Give an "
                "address of the console that pods reach, such as http://10.0.0.5:8000 or, inside the cluster, "
                "http://tir-console.tir.",
            )

    def _config(self, kind: str) -> dict[str, Any]:
        """Settings that this page doesn't show stay as they are."""
        shown = {"hosts", "images", "instance_types", *SWITCHES, *CLUSTER, *LISTS}
        config = {name: value for name, value in self.old.items() if name not in shown}
        if kind == RuntimeKind.PROCESS:
            return config
        config["images"] = self.images
        if kind == RuntimeKind.DOCKER:
            switched = {name: True for name in SWITCHES if self.cleaned_data.get(name)}
            return config | switched | {"hosts": [_typed(host) for host in self.hosts]}
        named = {name: self.cleaned_data[name] for name in CLUSTER if self.cleaned_data.get(name)}
        named |= {name: _several(self.cleaned_data[name]) for name in LISTS if self.cleaned_data.get(name)}
        return config | named | {"instance_types": self._pools()}

    def _pools(self) -> dict[str, Any]:
        found = {}
        for slug, (selector, tolerations) in self.pools.items():
            try:
                found[slug] = {"node_selector": _selector(selector), "tolerations": _tolerations(tolerations)}
            except ValueError as problem:
                self.pool_errors[slug] = str(problem)
                self.add_error(None, f"{slug}: {problem}")
        return {slug: pool for slug, pool in found.items() if any(pool.values())}

    # ── what the page draws by itself ───────────────────────────────────────────────────────────────
    @property
    def host_rows(self) -> list[list[tuple[str, str, str]]]:
        """(name, label, value) of each field of each host, and an empty one to add."""
        rows = [*self.hosts, {}] if len(self.hosts) < MOST_HOSTS else self.hosts
        return [[(name, label, str(host.get(name, ""))) for name, label in HOST.items()] for host in rows]

    @property
    def image_rows(self) -> list[tuple[str, str]]:
        return [(name, str(self.images.get(name, ""))) for name in IMAGES]

    @property
    def pool_rows(self) -> list[tuple[str, str, str, str]]:
        """(instance type, node selector, tolerations, what is wrong)."""
        types = InstanceType.objects.filter(enabled=True).values_list("slug", flat=True)
        empty = ("", "")
        return [
            (slug, *self.pools.get(slug, empty), self.pool_errors.get(slug, "")) for slug in (*types, "default")
        ]


def _posted_hosts(post: QueryDict) -> list[dict[str, str]]:
    columns = {name: post.getlist(f"host_{name}") for name in HOST}
    count = min(max((len(values) for values in columns.values()), default=0), MOST_HOSTS)
    rows = [
        {name: values[place].strip() for name, values in columns.items() if place < len(values)}
        for place in range(count)
    ]
    return [{name: text for name, text in row.items() if text} for row in rows if any(row.values())]


def _host(stored: Mapping[str, Any]) -> dict[str, str]:
    """A host's settings as they are typed."""
    gpus = stored.get("gpus")
    texts = {name: str(value) for name, value in stored.items() if name != "gpus" and value}
    return texts | ({"gpus": ", ".join(gpus) if isinstance(gpus, list) else str(gpus)} if gpus is not None else {})


def _typed(host: Mapping[str, str]) -> dict[str, Any]:
    """The same as the runtime reads them: GPUs are a number, or a list of ids."""
    gpus = host.get("gpus", "")
    return dict(host) | ({"gpus": int(gpus) if gpus.isdecimal() else _several(gpus)} if gpus else {})


def _several(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _posted_images(post: QueryDict) -> dict[str, str]:
    given = {name: str(post.get(f"image_{name}", "")).strip() for name in IMAGES}
    return {name: image for name, image in given.items() if image}


def _posted_pools(post: QueryDict) -> dict[str, tuple[str, str]]:
    slugs = {name.partition("_")[2]: None for name in post if name.startswith(("selector_", "tolerations_"))}
    given = {slug: (post.get(f"selector_{slug}", ""), post.get(f"tolerations_{slug}", "")) for slug in slugs}
    return {slug: (str(selector), str(tolerations)) for slug, (selector, tolerations) in given.items()}


def _written_pools(pools: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        slug: (
            ", ".join(f"{key}={value}" for key, value in pool.get("node_selector", {}).items()),
            ", ".join(_written(one) for one in pool.get("tolerations", ())),
        )
        for slug, pool in pools.items()
    }


def _written(toleration: Mapping[str, Any]) -> str:
    named = str(toleration.get("key", ""))
    named += f"={toleration['value']}" if toleration.get("value") else ""
    return f"{named}:{toleration['effect']}" if toleration.get("effect") else named


def _selector(text: str) -> dict[str, str]:
    """`key=value, key=value`. Raises ValueError in words."""
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if wrong := next((key for key, sign, _ in pairs if not sign or not key), None):
        raise ValueError(f"“{wrong}” is no label of a node: write key=value")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _tolerations(text: str) -> list[dict[str, str]]:
    """`key=value:NoSchedule, key:NoExecute`, as kubectl taint takes them. Raises ValueError in words."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pair, colon, effect = part.partition(":")
        key, equals, value = pair.partition("=")
        if not key or (colon and effect not in EFFECTS):
            raise ValueError(f"“{part}” is no taint: write key=value:NoSchedule")
        one = {"key": key, "operator": "Equal" if equals else "Exists"}
        one |= {"value": value} if equals else {}
        found.append(one | ({"effect": effect} if effect else {}))
    return found
