"""Small ONNX models, made where they are needed."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 4
FEATURES = 64


def save(path: Path, nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], **weights: Any) -> Path:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def classifier(path: Path, *, spread: float = 1.0) -> Path:
    """x [batch, 64] → probabilities [batch, 4]. With a large `spread` int8 loses what the small weights say."""
    random = np.random.default_rng(7)
    first = random.normal(size=(FEATURES, 32)).astype(np.float32)
    first[0] *= spread
    second = random.normal(size=(32, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])
    return save(path, nodes, [given], [found], first=first, second=second)


def adder(path: Path, shape: list[str | int], dtype: int = TensorProto.INT64) -> Path:
    """a + b, of this shape."""
    given = [helper.make_tensor_value_info(name, dtype, shape) for name in ("a", "b")]
    found = helper.make_tensor_value_info("sum", dtype, shape)
    return save(path, [helper.make_node("Add", ["a", "b"], ["sum"])], given, [found])


def examples(count: int, *, seed: int = 1) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)
