"""The texts of a model's folder: model.py, requirements.txt and config.json, read and never run."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from endpoints.sources.note import BAD, NOTE, OK, WARN, Note

ANSWERS: Final = ("predict", "chat", "stream", "embed")
METHODS: Final = ("load", *ANSWERS)
TAKES: Final = {"load": "load(self, path)", "predict": "predict(self, inputs)"}  # each gets one argument
Function = ast.FunctionDef | ast.AsyncFunctionDef


def model_class(path: str, text: str) -> tuple[tuple[str, ...], list[Note]]:
    """The methods that the server can call of the class Model, and what is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in their text is no business of ours
            tree = ast.parse(text)
    except SyntaxError as wrong:
        return (), [Note(path, BAD, f"Line {wrong.lineno or 1} is not Python: {wrong.msg}.", "Mend it.")]
    except (ValueError, RecursionError, MemoryError):
        return (), [Note(path, BAD, "It can't be read as Python.", "Look for NUL bytes and very deep nesting.")]
    found = next((one for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and one.name == "Model"), None)
    if found is None:
        return _without_class(path, tree)
    methods = {one.name: one for one in found.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    inherits = any(not (isinstance(base, ast.Name) and base.id == "object") for base in found.bases)
    notes = [*_lacking(path, methods.keys(), inherits), *_signatures(path, methods)]
    known = tuple(name for name in METHODS if name in methods)
    return known, notes or [Note(path, OK, f"Class Model with {', '.join(known)}.")]


def _without_class(path: str, tree: ast.Module) -> tuple[tuple[str, ...], list[Note]]:
    for one in ast.walk(tree):
        imported = isinstance(one, ast.ImportFrom) and any("Model" in (it.asname, it.name) for it in one.names)
        assigned = isinstance(one, ast.Assign) and any(
            isinstance(it, ast.Name) and it.id == "Model" for it in one.targets
        )
        if imported or assigned:
            return (), [Note(path, NOTE, "Model comes from elsewhere; only its start will show what it can do.")]
    return (), [
        Note(
            path,
            BAD,
            "There is no class Model.",
            "Define class Model with load(self, path) and predict(self, inputs).",
        )
    ]


def _lacking(path: str, methods: object, inherits: bool) -> Iterator[Note]:
    has = set(methods)  # type: ignore[call-overload]
    level = WARN if inherits else BAD
    where = " here; a base class may bring it" if inherits else ""
    if "load" not in has:
        yield Note(
            path,
            level,
            f"Class Model has no method load{where}.",
            "Define load(self, path): it reads the weights.",
        )
    if not has & set(ANSWERS):
        yield Note(
            path,
            level,
            f"Class Model has no method predict, chat, stream or embed{where}.",
            "Define predict(self, inputs).",
        )


def _signatures(path: str, methods: dict[str, Function]) -> Iterator[Note]:
    for name in METHODS:
        if isinstance(method := methods.get(name), ast.AsyncFunctionDef):
            yield Note(
                path, BAD, f"Line {method.lineno}: {name} is async; the server calls it plainly.", "Use def."
            )
    for name, form in TAKES.items():
        method = methods.get(name)
        if method is not None and not _takes_one(method):
            said = f"Line {method.lineno}: the server calls {form}; {name} can't be called so."
            yield Note(path, BAD, said, f"Write it as {form}.")


def _takes_one(method: Function) -> bool:
    """Whether it can be called with one argument, beside self where it has one."""
    static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in method.decorator_list)
    arguments = method.args
    most = len([*arguments.posonlyargs, *arguments.args]) - (0 if static else 1)
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    if any(default is None for _, default in keywords):
        return False
    return most - len(arguments.defaults) <= 1 <= most or (most < 1 and arguments.vararg is not None)


# ── requirements.txt ─────────────────────────────────────────────────────────────────────────────
def requirement_notes(path: str, text: str) -> list[Note]:
    """Every line must be a requirement; where packages come from is the console's to say."""
    notes, count = [], 0
    for number, line in _lines(text):
        count += 1
        if problem := _line_problem(line):
            level, said, todo = problem
            notes.append(Note(path, level, f"Line {number}: {said}", todo))
    if any(note.level == BAD for note in notes):
        return notes
    return [Note(path, OK, f"{count} {'requirement' if count == 1 else 'requirements'}."), *notes]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Requirements with the number of the line each begins in; comments and continuations resolved."""
    held, begun = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        begun = begun or number
        held += " " + line.removesuffix("\\") if line else ""
        if line.endswith("\\"):
            continue
        if held.strip():
            yield begun, held.strip()
        held, begun = "", 0
    if held.strip():
        yield begun, held.strip()


def _line_problem(line: str) -> tuple[str, str, str] | None:
    """Never says the line itself where it may hold a password."""
    if line.startswith("-"):
        option = re.split(r"[\s=]", line, maxsplit=1)[0]
        return BAD, f"{option} can't be used here.", "Name packages only, one a line."
    plain = re.sub(r"\s--hash[=\s]\S+", "", line)
    if re.match(r"[a-z+]+://|\.{0,2}/|file:", plain, re.IGNORECASE):
        return BAD, "A path or an address without a name.", "Write it as: name @ https://…"
    try:
        wanted = Requirement(plain)
    except InvalidRequirement:
        shown = "" if "@" in line else f" “{line[:80]}”"
        return BAD, f"This is no requirement{shown}.", "Write it as: name>=1.2,<2"
    if not wanted.url:
        return None
    if re.match(r"[^/]*//[^/]*@", wanted.url) and not re.match(r"git\+ssh://git@", wanted.url):
        return BAD, f"The address of {wanted.name} holds credentials.", "Keep them out of the model."
    if wanted.url.startswith("file:") or "://" not in wanted.url:
        return (
            BAD,
            f"{wanted.name} points into a folder of another machine.",
            "Name a version, or an https address.",
        )
    return WARN, f"{wanted.name} comes from an address, which must be reachable where it is built.", ""


# ── config.json ──────────────────────────────────────────────────────────────────────────────────
def json_notes(path: str, text: str) -> list[Note]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        return [Note(path, BAD, f"It is not JSON: {str(wrong)[:120]}.", "Mend it.")]
    if not isinstance(found, dict):
        return [Note(path, BAD, "It must be a JSON object.", "Begin it with { and end it with }.")]
    kind = found.get("model_type")
    return [
        Note(path, OK, f"The configuration of a {kind} model." if isinstance(kind, str) else "Its configuration.")
    ]
