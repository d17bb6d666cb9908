"""What can't work together: a precision a GPU lacks, a format the model file doesn't have."""

from typing import Final

from endpoints.gguf import GGUFFacts
from endpoints.memory.kv import KV_TYPES

Capability = tuple[int, int]

# CUDA compute capability by the name people and drivers use; NVIDIA's table.
CAPABILITIES: Final[dict[str, Capability]] = {
    "P100": (6, 0),
    "V100": (7, 0),
    "T4": (7, 5),
    "A100": (8, 0),
    "A30": (8, 0),
    "A10": (8, 6),
    "A10G": (8, 6),
    "A40": (8, 6),
    "L4": (8, 9),
    "L40": (8, 9),
    "L40S": (8, 9),
    "H100": (9, 0),
    "H200": (9, 0),
    "B200": (10, 0),
}
# GiB that the driver gives where the memory holds its own error correction: 15/16 of what the card is named for.
USABLE_GIB: Final = {"T4": 15.0, "A10": 22.5, "A10G": 22.5, "L4": 22.5, "A40": 45.0, "L40": 45.0, "L40S": 45.0}
BFLOAT16: Final[Capability] = (8, 0)

# In llama.cpp the weights stay as the file has them; the data type is that of the key-value cache.
KV_TYPE_FOR: Final = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "q8_0"}
QUANTIZATION_FOR: Final = {"fp32": "F32", "fp16": "F16", "int8": "Q8_0"}
UNQUANTIZED: Final = frozenset({"", "none"})


def capability_of(gpu: str) -> Capability | None:
    """(7, 5) of "T4", "NVIDIA T4" or "Tesla T4"; None of a card that isn't known."""
    return next((CAPABILITIES[word] for word in _words(gpu) if word in CAPABILITIES), None)


def usable_bytes(gpu: str, named: int) -> int:
    """What a card of this name and size gives to those who use it."""
    return min([named, *(int(USABLE_GIB[word] * (1 << 30)) for word in _words(gpu) if word in USABLE_GIB)])


def _words(gpu: str) -> list[str]:
    return gpu.upper().replace("-", " ").split()


def precision_problem(gpu: str | Capability, data_type: str) -> str | None:
    """Why this GPU can't compute in this type and what to choose instead; None if it can or isn't known."""
    capability = capability_of(gpu) if isinstance(gpu, str) else gpu
    if data_type != "bfloat16" or capability is None or capability >= BFLOAT16:
        return None
    name = gpu if isinstance(gpu, str) else "This GPU"
    major, minor = capability
    return (
        f"{name} can't compute in bfloat16: it has compute capability {major}.{minor}, bfloat16 needs 8.0. "
        "Choose float16, or a GPU such as the A100."
    )


def format_problem(
    facts: GGUFFacts, load_format: str, data_type: str, quantization: str = "", *, max_length: int | None = None
) -> dict[str, str]:
    """What of these settings the file can't give with llama.cpp: field name -> message; {} if all is well.

    Fields: load_format, data_type, quantization, max_sequence_length.
    """
    found = {
        "load_format": _load_format(facts, load_format),
        "data_type": _data_type(facts, data_type),
        "quantization": _quantization(facts, quantization),
        "max_sequence_length": _length(facts, max_length),
    }
    return {field: message for field, message in found.items() if message}


def _load_format(facts: GGUFFacts, load_format: str) -> str:
    wanted = load_format.lower()
    if wanted == "auto":
        return ""
    needs = QUANTIZATION_FOR.get(wanted)
    if needs is None:
        return f"llama.cpp knows no load format “{load_format}”. Choose Auto, FP32, FP16 or INT8."
    if facts.quantization == needs:
        return ""
    return (
        f"{load_format.upper()} needs a {needs} file, and this one is {_format(facts)}. "
        f"llama.cpp loads a file as it is: choose Auto, or a {needs} file of the model."
    )


def _data_type(facts: GGUFFacts, data_type: str) -> str:
    kv_type = KV_TYPE_FOR.get(data_type)
    if kv_type is None:
        return f"llama.cpp can't keep its cache as {data_type}. Choose one of {', '.join(KV_TYPE_FOR)}."
    block = KV_TYPES[kv_type].elements
    heads = max(facts.head_count, default=0)
    head = facts.key_length or ((facts.embedding_length or 0) // heads if heads else 0)
    if head % block:
        return (
            f"An {data_type} cache packs {block} values together, and this model's heads have {head}. "
            "Choose float16."
        )
    return ""


def _quantization(facts: GGUFFacts, quantization: str) -> str:
    if quantization.lower() in UNQUANTIZED:
        return ""
    return (
        "A GGUF file is quantized when it is made, not when it is loaded: "
        f"this one is {_format(facts)}. Choose None here and a file in the format you want."
    )


def _length(facts: GGUFFacts, max_length: int | None) -> str:
    if max_length is None or facts.context_length is None or max_length <= facts.context_length:
        return ""
    return (
        f"The model was trained for {facts.context_length:,} tokens; {max_length:,} is more. "
        f"Choose at most {facts.context_length:,}."
    )


def _format(facts: GGUFFacts) -> str:
    return facts.quantization or "of unknown format"
