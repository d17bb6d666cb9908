"""The checks before a deployment: each looks at what was chosen and says what it saw."""

from __future__ import annotations

from dataclasses import dataclass

from endpoints.images.requirements import summary, wrong
from endpoints.memory import Verdict
from endpoints.sources.note import OK, WARN
from endpoints.spec import Framework, SourceKind
from endpoints.templatetags.formats import bytes_binary
from endpoints.wizard.environment_form import standard_variables
from endpoints.wizard.judge import Judged
from endpoints.wizard.panel import Panel

PINNED: dict[str, str] = {
    SourceKind.REGISTRY: "version {source.version}",
    SourceKind.HUGGING_FACE: "commit {revision}",
    SourceKind.GIT: "commit {revision}",
    SourceKind.S3: "what the bucket holds now ({revision})",
    SourceKind.GCS: "what the bucket holds now ({revision})",
}
HEALTH = (
    "GET /health on each instance, and where the model chats one real one-token call before it gets traffic. "
    "It has 30–60 s for that."
)
HEALTH_CUSTOM = "GET on the image's health path; an instance gets traffic once that answers 200."
WORDS = {"ok": "Checked", "warn": "Look at this", "bad": "To do"}


@dataclass(frozen=True)
class Item:
    """`tone`: ok, warn (deploys all the same) or bad (can't be deployed); `step`: where to mend it."""

    title: str
    tone: str
    text: str
    step: str = ""

    @property
    def word(self) -> str:
        return WORDS[self.tone]


def checklist(judged: Judged, panel: Panel) -> list[Item]:
    custom = judged.situation.engine == Framework.CUSTOM
    return [
        _named(judged),
        *([_container(judged)] if custom and judged.method.is_valid() else []),
        _model(judged),
        _resources(judged, panel),
        _settings(judged),
        _scaling(judged),
        _environment(judged),
        Item("Health checks", "ok", HEALTH_CUSTOM if custom else HEALTH),
        Item("Monitoring", "ok", "Requests, latency, errors, CPU, memory and logs are recorded from the start."),
    ]


def problems(items: list[Item]) -> list[Item]:
    return [item for item in items if item.tone == "bad"]


def _first_error(judged: Judged, *steps: str) -> tuple[str, str] | None:
    for step in steps:
        for texts in judged.form(step).errors.values():
            return step, str(texts[0])
    return None


def _named(judged: Judged) -> Item:
    if wrong := _first_error(judged, "basics", "method"):
        return Item("Name and method", "bad", wrong[1], wrong[0])
    return Item("Name and method", "ok", f"The name “{judged.basics.cleaned_data['name']}” is free.", "basics")


def _container(judged: Judged) -> Item:
    """What a custom container must do, as far as it can be told before it runs."""
    asked = judged.method.cleaned_data
    text = (
        f"{asked.get('image')} must answer GET {asked.get('health_path')} on port {asked.get('port')} "
        f"with 200 within {asked.get('startup_seconds')} s, without root rights. {_seen(judged)} "
        f"{judged.method.moving}"
    ).strip()
    look = any(line.level != OK for line in judged.image_lines())
    return Item("Container", "warn" if look or judged.method.moving else "ok", text, "method")


def _seen(judged: Judged) -> str:
    """What its registry said of the image, if it was asked."""
    look, lines = judged.situation.image, judged.image_lines()
    if look is None:
        return "Its registry wasn't asked about it."
    first = wrong(lines) or summary(lines).removesuffix(".")
    return f"Its registry has it as {look.seen.digest[:19]}…. {first}."


def _model(judged: Judged) -> Item:
    title = "Model configuration"
    if wrong := _first_error(judged, "source"):
        return Item(title, "bad", wrong[1], wrong[0])
    look, source = judged.situation.look, judged.situation.source
    if look is None or source is None:
        return Item(title, "bad", "The source wasn't reached yet. Test the connection.", "source")
    if source.kind == SourceKind.NONE:
        return Item(title, "ok", "The image brings its own model: nothing is fetched.", "source")
    pinned = PINNED[source.kind].format(source=source, revision=look.found.revision[:12])
    size = bytes_binary(look.size) if look.size else "size unknown"
    if judged.situation.engine != Framework.LLAMA_CPP:
        warned = [note.said for note in look.found.layout.notes if note.level == WARN] if look.found.layout else []
        text = f"{len(look.found.files):,} files, {size}, pinned to {pinned}. {' '.join(warned[:1])}".strip()
        return Item(title, "warn" if warned else "ok", text, "source")
    if look.facts is None:
        return Item(title, "warn", f"{look.file} ({size}), pinned to {pinned}; its header wasn't read.", "source")
    return Item(title, "ok", f"{look.file}, {look.facts.quantization}, {size}, pinned to {pinned}.", "source")


def _resources(judged: Judged, panel: Panel) -> Item:
    title = "Resource allocation"
    if wrong := _first_error(judged, "machine"):
        return Item(title, "bad", wrong[1], wrong[0])
    if panel.need is None or panel.need.verdict in (Verdict.UNKNOWN, Verdict.TIGHT):
        return Item(title, "warn", panel.verdict, "machine")
    if panel.need.verdict == Verdict.DOES_NOT_FIT:
        return Item(title, "bad", panel.verdict, "machine")
    return Item(title, "ok", f"{panel.machine}: {panel.verdict}", "machine")


def _settings(judged: Judged) -> Item:
    if wrong := _first_error(judged, "llm"):
        return Item("LLM settings", "bad", wrong[1], "llm")
    values, unused = judged.llm.cleaned_data, judged.llm.unused()
    if judged.situation.engine == Framework.CUSTOM:
        return Item("LLM settings", "ok", "Your image decides: the console sets nothing in it.", "llm")
    told = [f"{values['batch_size']} at a time"]
    if "max_sequence_length" not in unused:
        told.insert(0, f"{values['max_sequence_length']:,} tokens a sequence")
    if "temperature" not in unused:
        told.append(
            f"temperature {values['temperature']:g}, top-k {values['top_k']}, top-p {values['top_p']:g} by default"
        )
    return Item("LLM settings", "ok", f"{', '.join(told)}.", "llm")


def _scaling(judged: Judged) -> Item:
    title = "Scaling configuration"
    if wrong := _first_error(judged, "scaling"):
        return Item(title, "bad", wrong[1], "scaling")
    values, machine, region = judged.scaling.cleaned_data, judged.situation.machine, judged.situation.region
    low, high = values["min_instances"], values["max_instances"]
    if low == 0 and not values["warm_spare"]:
        text = "Min is 0: one instance starts now. Without requests it sleeps, and the next one waits for a start."
        return Item(title, "warn", text, "scaling")
    room = (region.capacity.get("cpu_millis") or 0) // (machine.vcpus * 1000) if region and machine else 0
    if room and high > room:
        text = f"{low} to {high} instances are allowed; the region has room for {room} of this size in all."
        return Item(title, "bad" if low > room else "warn", text, "scaling")
    text = f"{low} to {high} instances, as the load asks." if low < high else f"Always {low}."
    return Item(title, "ok", text, "scaling")


def _environment(judged: Judged) -> Item:
    title = "Environment variables"
    if wrong := _first_error(judged, "environment"):
        return Item(title, "bad", wrong[1], "environment")
    values = judged.environment.cleaned_data
    plain, secret = len(values["variables"]), len(values["secrets"])
    path = standard_variables(judged.situation)["MODEL_PATH"].hint.removeprefix("Required. ")
    text = f"MODEL_PATH: {path} {plain} of your own, {secret} from secrets."
    if gone := [name for name, value in values["variables"] if not value]:
        return Item(title, "warn", f"{text} Without a value: {', '.join(gone)}.", "environment")
    return Item(title, "ok", text, "environment")
