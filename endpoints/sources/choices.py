"""Which files of a repository are models that llama.cpp can run."""

import re
from collections.abc import Sequence
from typing import Final

from endpoints.sources.base import Choice, SourceFile, SourceProblem

SHARD: Final = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
NOT_A_MODEL: Final = re.compile(r"(^|/)(mmproj|imatrix|ggml-vocab)|imatrix\.gguf$", re.IGNORECASE)
# What people choose most where several quantizations lie side by side: small enough, good enough.
PREFERRED: Final = ("Q4_K_M", "Q5_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_XS", "Q6_K", "Q8_0", "F16", "BF16", "F32")


def model_choices(files: Sequence[SourceFile]) -> tuple[Choice, ...]:
    """The GGUF models among the files, shards joined; an incomplete set of shards is left out."""
    shards: dict[str, list[SourceFile]] = {}
    single: list[Choice] = []
    for file in sorted(files, key=lambda file: file.path):
        if not file.path.lower().endswith(".gguf") or NOT_A_MODEL.search(file.path):
            continue
        if found := SHARD.match(file.path):
            shards.setdefault(f"{found['stem']}/{found['count']}", []).append(file)
        else:
            single.append(Choice(file.path, (file.path,), file.size))
    whole = [_joined(parts) for parts in shards.values() if _complete(parts)]
    return tuple(sorted([*single, *whole], key=lambda choice: choice.path))


def default_choice(choices: Sequence[Choice]) -> Choice:
    """The one offered first: by the preferred quantization in its name, else the smallest."""
    for name in PREFERRED:
        pattern = re.compile(rf"(?<![A-Z0-9]){name}(?![A-Z0-9_])", re.IGNORECASE)
        for choice in choices:
            if pattern.search(choice.path):
                return choice
    return min(choices, key=lambda choice: choice.size)


def chosen(choices: Sequence[Choice], wanted: str) -> Choice:
    """The choice that was asked for by any of its files' paths; "" asks for the default."""
    if not wanted:
        return default_choice(choices)
    for choice in choices:
        if wanted in choice.files:
            return choice
    names = ", ".join(choice.path for choice in choices[:8])
    raise SourceProblem("no_file", f"There is no model file “{wanted}”. There is: {names}.", "file")


def nothing_to_run(files: Sequence[SourceFile], where: str, field: str = "model_id") -> SourceProblem:
    """The problem of a repository without a GGUF file, saying what it has instead; `field` is the setting."""
    names = [file.path for file in files]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    if not names:
        return SourceProblem("no_model", f"{where} is empty.", field)
    if any(SHARD.match(name) for name in names):
        said = f"{where} holds only a part of a split GGUF model: {shown}. Choose a complete one."
    elif any(name.endswith((".safetensors", ".bin", ".pt")) for name in names):
        said = (
            f"{where} holds no GGUF file, which llama.cpp needs, but weights in another format: {shown}. "
            "Look for the same model with “-GGUF” in its name."
        )
    else:
        said = f"{where} holds no GGUF file, which llama.cpp needs. It holds: {shown}."
    return SourceProblem("no_model", said, field)


def _complete(parts: Sequence[SourceFile]) -> bool:
    numbers = [int(found["number"]) for part in parts if (found := SHARD.match(part.path))]
    first = SHARD.match(parts[0].path)
    return first is not None and numbers == list(range(1, int(first["count"]) + 1))


def _joined(parts: Sequence[SourceFile]) -> Choice:
    return Choice(parts[0].path, tuple(part.path for part in parts), sum(part.size for part in parts))
