"""What a check of any source sees, once it has pinned a revision and can list and read files."""

from collections.abc import Sequence

from endpoints.safetensors import NotSafetensors, Weights, weights_of
from endpoints.sources.base import Found, Source, SourceFile, SourceProblem, read_model
from endpoints.sources.choices import chosen, model_choices, nothing_to_run
from endpoints.sources.layout import layout_of
from endpoints.sources.paths import require_places

GGUF_ENGINES = frozenset({"llama.cpp"})  # the others load a folder


def look(
    source: Source,
    *,
    revision: str,
    engine: str,
    where: str,
    wanted: str = "",
    field: str = "model_id",
    terms: str = "",
    gated: bool = False,
) -> Found:
    """For an engine of GGUF files the choice among them, else all files of the folder.

    `where` names the source for the person who asked, `field` the setting that says it, `terms` its licence.
    SourceProblem when there is nothing that the engine can load.
    """
    files = source.files()
    if engine in GGUF_ENGINES:
        choices = model_choices(files)
        if not choices:
            raise nothing_to_run(files, where, field)
        choice = chosen(choices, wanted)
        facts = read_model(source, choice, {file.path: file.size for file in files})
        return Found(revision, tuple(files), choices, choice.path, facts, terms or facts.license, gated)
    if not files:
        raise nothing_to_run(files, where, field)
    require_places([file.path for file in files], where)
    if gated:  # anybody may list it, and not all of it may be asked for below
        source.read(max(files, key=lambda file: file.size).path, 0, 1)
    layout = layout_of(files, source.read, engine)
    return Found(revision, tuple(files), (), "", None, terms, gated, _weights(source, files), layout)


def _weights(source: Source, files: Sequence[SourceFile]) -> Weights | None:
    try:
        return weights_of({file.path: file.size for file in files}, source.read)
    except NotSafetensors as wrong:
        raise SourceProblem("not_safetensors", f"{wrong} Store it again.", "path") from None
