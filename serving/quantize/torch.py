"""Quantization of a PyTorch module by torch.ao's own tools, on the CPU."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import torch

from serving.config import Refusal

VERSION = str(torch.__version__)
DYNAMIC = {torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU}


def dynamic(module: Any) -> Any:
    """The module with its linear and recurrent layers in int8. Refusal 65 if it has none."""
    if not any(isinstance(one, tuple(DYNAMIC)) for one in module.modules()):
        raise Refusal(65, "dynamic quantization changes nothing here: the module has no Linear, LSTM or GRU")
    with _quiet("dynamic"):
        return torch.ao.quantization.quantize_dynamic(module, DYNAMIC, dtype=torch.qint8)


def static(module: Any, observe: Callable[[Any], None]) -> Any:
    """The module in int8 with ranges as `observe(prepared)` shows them. Refusal 65 if it can't be traced."""
    with _quiet("static"):
        from torch.ao.quantization import get_default_qconfig_mapping  # noqa: PLC0415  gone in a later torch
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx  # noqa: PLC0415

        backend = torch.backends.quantized.engine
        example = (torch.zeros(1),)  # the tracer records the graph without running it
        prepared = prepare_fx(copy.deepcopy(module), get_default_qconfig_mapping(backend), example)
        observe(prepared)
        return convert_fx(prepared)


def size(module: Any) -> int:
    """Bytes of its weights as they would be saved."""
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    return buffer.tell()


def is_quantized(module: Any) -> bool:
    """Whether a layer of it is quantized."""
    return any("quantized" in type(one).__module__ for one in module.modules())


class _quiet:  # noqa: N801  reads as a statement
    """What torch says of its own future plans is not our user's business; what it can't do is."""

    def __init__(self, method: str) -> None:
        self.method = method
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._caught.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._caught.__exit__(kind, error, None)
        if isinstance(error, Exception) and not isinstance(error, Refusal):
            words = f"torch {torch.__version__} cannot quantize this module ({self.method})"
            raise Refusal(65, f"{words}: {str(error).strip().splitlines()[0]}") from error
