"""A plain ONNX model: an onnxruntime session behind JSON tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from serving.config import EngineConfig, Refusal
from serving.models.base import BadInput, Served
from serving.models.tensors import Tensor, named

DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "O",
}
Arrays = Mapping[str, np.ndarray[Any, Any]]
SEVERITY = {"DEBUG": 0, "INFO": 2, "WARNING": 2, "ERROR": 3}  # onnxruntime's own INFO tells of every node


class OnnxModel(Served):
    """One session. Where the first axis of every input and output may have any length, it is the batch: an item
    is then given and answered without it, and items of one shape are worked on together. Else an item is the
    whole tensor, and each is worked on alone."""

    capabilities = ("predict",)

    def __init__(self, session: Any, path: str) -> None:
        self.session = session
        self.path = path
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self.batched = all(_open(one) for one in (*inputs, *outputs)) and bool(inputs)
        self.inputs = [_tensor(one, self.batched) for one in inputs]
        self.outputs = [one.name for one in outputs]
        self._shown = [_output(one, self.batched) for one in outputs]

    def predict(self, inputs: list[Any]) -> list[Any]:
        """See Served.predict."""
        items = [named(self.inputs, one) for one in inputs]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for index, item in enumerate(items):
            shapes = tuple(array.shape for array in item.values())
            groups.setdefault(shapes if self.batched else ((index,),), []).append(index)
        outputs: list[Any] = [None] * len(items)
        for members in groups.values():
            for index, output in zip(members, self._run([items[index] for index in members]), strict=True):
                outputs[index] = output
        return outputs

    def _run(self, items: list[dict[str, np.ndarray[Any, Any]]]) -> list[dict[str, Any]]:
        """One call of the session for items of one shape."""
        fed = stacked(items) if self.batched else items[0]
        try:
            found = self.session.run(self.outputs, fed)
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            raise BadInput(f"the model does not take this: {error}") from error
        if not self.batched:
            return [dict(zip(self.outputs, found, strict=True))]
        return [
            {name: array[index] for name, array in zip(self.outputs, found, strict=True)}
            for index in range(len(items))
        ]

    def example(self) -> dict[str, Any]:
        """An item of zeros, with 1 for every length that is open."""
        return {
            tensor.name: np.zeros(
                [one if isinstance(one, int) else 1 for one in tensor.shape],
                dtype="U1" if tensor.dtype.kind == "O" else tensor.dtype,
            ).tolist()
            for tensor in self.inputs
        }

    def warm_up(self) -> str:
        """See Served.warm_up. Zeros are our guess, not the author's example: a model may refuse them."""
        try:
            self.predict([self.example()])
        except Exception as error:  # noqa: BLE001  whatever the session says, it says of our guess
            return f"it takes no zeros of length 1, so it is not warmed up: {error}"
        return "warmed up with zeros"

    def metadata(self) -> dict[str, Any]:
        """See Served.metadata."""
        return {
            "inputs": [tensor.shown() for tensor in self.inputs],
            "outputs": self._shown,
            "batched": self.batched,
            "providers": self.session.get_providers(),
            "file": Path(self.path).name,
        }


def load(config: EngineConfig, path: str) -> OnnxModel:
    """The model in this file. Refusal 65 if onnxruntime can't load it."""
    try:
        return OnnxModel(session(config, path), path)
    except Refusal:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common parent
        raise Refusal(65, f"onnxruntime cannot load {Path(path).name}: {_line(error)}") from error


def session(config: EngineConfig, path: str) -> Any:
    """A session on the GPUs if the endpoint has some and this onnxruntime can use them, else on the CPU."""
    given = onnxruntime.SessionOptions()
    given.intra_op_num_threads = config.threads
    given.inter_op_num_threads = 1
    given.log_severity_level = SEVERITY[config.log_level]
    there = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if config.gpus and "CUDAExecutionProvider" in there else []
    return onnxruntime.InferenceSession(path, given, providers=[*wanted, "CPUExecutionProvider"])


def find(path: str) -> str | None:
    """The .onnx file that this path is or holds: at its top, else in weights/, else in any folder.

    Refusal 65 if there are several in the same place.
    """
    if path.endswith(".onnx"):
        return path
    folder = Path(path)
    for place in (folder.glob("*.onnx"), folder.glob("weights/*.onnx"), folder.rglob("*.onnx")):
        found = sorted(map(str, place))
        if len(found) > 1:
            names = ", ".join(Path(one).name for one in found)
            raise Refusal(65, f"the folder holds several ONNX models ({names}): keep one, or add a model.py")
        if found:
            return found[0]
    return None


def stacked(items: list[dict[str, np.ndarray[Any, Any]]]) -> dict[str, np.ndarray[Any, Any]]:
    """The items as one batch, along a new first axis."""
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


def _open(one: Any) -> bool:
    """Whether the first axis may have any length. (A sequence of maps, as classifiers give, has one per item.)"""
    if not one.type.startswith("tensor"):
        return True
    return bool(one.shape) and not isinstance(one.shape[0], int)


def _tensor(one: Any, batched: bool) -> Tensor:
    word = one.type.removeprefix("tensor(").removesuffix(")")
    if word not in DTYPES:
        raise Refusal(65, f"the input {one.name} is a {one.type}: JSON has no such thing")
    return Tensor(one.name, np.dtype(DTYPES[word]), tuple(one.shape[1:] if batched else one.shape))


def _output(one: Any, batched: bool) -> dict[str, Any]:
    word = one.type.removeprefix("tensor(").removesuffix(")")
    shape = list(one.shape or [])
    dtype = "string" if word == "string" else DTYPES.get(word, word)
    return {"name": one.name, "dtype": dtype, "shape": shape[1:] if batched else shape}


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
