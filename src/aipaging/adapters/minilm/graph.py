"""The network as an ONNX graph, built from the verified weights: six BERT layers, mean pooling, unit length.

Built in memory at every start (a fraction of a second), so there is no cache whose contents would have to be trusted.
The weights stay beside the graph: as messages of the protocol they would be copied four times over, and no other
thread of the process runs during such a copy.
Symbols are those of Vaswani et al. (2017) and of the BERT checkpoint's own tensor names.
"""

import contextlib
import logging
import math
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from aipaging.adapters.minilm.weights import DIMENSIONS, Tensors

LAYERS: Final = 6
HEADS: Final = 12
NORM_EPSILON: Final = 1e-12
"""Of the checkpoint's configuration; for both the layers' normalisation and the division to unit length."""

MASKED: Final = -1e9
"""Added to the score of padding: exp of it is zero in every precision that we run."""

OPSET: Final = 20
"""The first one with Gelu as an operator."""

IR_VERSION: Final = 10
"""Read by every onnxruntime of the supported range."""


BESIDE_BYTES: Final = 1024
"""Smaller constants are part of the graph: shapes and axes, which the runtime must know to optimise it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A graph, and the weights that it names; a session copies them, they need not outlive its making.

    Attributes:
        model: The serialised graph, whose weights are declared as lying elsewhere.
        weights: They, by the names that the graph has for them.
    """

    model: bytes
    weights: Mapping[str, npt.NDArray[Any]]


class _Graph:
    """Collects nodes and constants; names are given in order, so the same weights give the same graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.weights: dict[str, npt.NDArray[Any]] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{operator}_{output}", **attributes))
        return output

    def split(self, value: str, parts: int) -> list[str]:
        outputs = [f"n{len(self.nodes)}_{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [value], outputs, axis=-1, num_outputs=parts))
        return outputs

    def constant(self, value: Any, *, dtype: npt.DTypeLike = np.float32) -> str:
        name = f"c{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        if array.nbytes < BESIDE_BYTES:
            self.constants.append(numpy_helper.from_array(array, name))
        else:
            self.constants.append(_declared(name, array))
            self.weights[name] = array
        return name


def _declared(name: str, array: npt.NDArray[Any]) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="beside")  # no file: the session is given the weights
    return tensor


def build_network(tensors: Tensors) -> Network:
    """Return the fp32 network: `ids` and `mask` (batch, length) in, `embedding` (batch, 384) out."""
    graph = _Graph()
    mask = graph.node("Cast", "mask", to=TensorProto.FLOAT)
    hidden = _embedded(graph, tensors)
    bias = _attention_bias(graph, mask)
    for layer in range(LAYERS):
        hidden = _layer(graph, tensors, f"encoder.layer.{layer}.", hidden=hidden, bias=bias)
    _pooled(graph, hidden, mask)
    proto = helper.make_graph(
        graph.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIMENSIONS])],
        graph.constants,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return Network(model=bytes(model.SerializeToString()), weights=graph.weights)


def quantized(network: Network) -> bytes:
    """Return the graph with its matrix products in int8: about twice as fast, and about 0.02 off in a component."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415  heavy, and only int8 needs it

    model = onnx.load_model_from_string(network.model)
    for tensor in model.graph.initializer:
        if tensor.name in network.weights:
            tensor.CopyFrom(numpy_helper.from_array(network.weights[tensor.name], tensor.name))
    with tempfile.TemporaryDirectory(prefix="aipaging-model-") as directory, _quiet():
        output = Path(directory) / "int8.onnx"
        quantize_dynamic(model, output, weight_type=QuantType.QInt8, per_channel=True)
        return output.read_bytes()


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    # The quantizer advises on the root logger, and to advise it installs a handler there.
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _embedded(graph: _Graph, tensors: Tensors) -> str:
    prefix = "embeddings."
    words = graph.node("Gather", graph.constant(tensors[prefix + "word_embeddings.weight"]), "ids")
    # One text at a time: every token has type 0, so its row joins the positions.
    places = tensors[prefix + "position_embeddings.weight"] + tensors[prefix + "token_type_embeddings.weight"][0]
    length = graph.node("Shape", "ids", start=1, end=2)
    zero = graph.constant([0], dtype=np.int64)
    positions = graph.node("Slice", graph.constant(places), zero, length, zero)
    return _normalised(graph, tensors, prefix + "LayerNorm", graph.node("Add", words, positions))


def _attention_bias(graph: _Graph, mask: str) -> str:
    padding = graph.node("Sub", graph.constant(1.0), mask)
    scores = graph.node("Mul", padding, graph.constant(MASKED))
    return graph.node("Unsqueeze", scores, graph.constant([1, 2], dtype=np.int64))


def _layer(graph: _Graph, tensors: Tensors, prefix: str, *, hidden: str, bias: str) -> str:
    context = _attention(graph, tensors, prefix, hidden=hidden, bias=bias)
    attended = _dense(graph, tensors, [prefix + "attention.output.dense"], context)
    hidden = _normalised(graph, tensors, prefix + "attention.output.LayerNorm", graph.node("Add", attended, hidden))
    wide = graph.node("Gelu", _dense(graph, tensors, [prefix + "intermediate.dense"], hidden))
    narrow = _dense(graph, tensors, [prefix + "output.dense"], wide)
    return _normalised(graph, tensors, prefix + "output.LayerNorm", graph.node("Add", narrow, hidden))


def _attention(graph: _Graph, tensors: Tensors, prefix: str, *, hidden: str, bias: str) -> str:
    names = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
    query, key, value = graph.split(_dense(graph, tensors, names, hidden), 3)
    by_head = graph.constant([0, 0, HEADS, DIMENSIONS // HEADS], dtype=np.int64)
    query = graph.node("Transpose", graph.node("Reshape", query, by_head), perm=[0, 2, 1, 3])
    key = graph.node("Transpose", graph.node("Reshape", key, by_head), perm=[0, 2, 3, 1])
    value = graph.node("Transpose", graph.node("Reshape", value, by_head), perm=[0, 2, 1, 3])
    scaled = graph.node("Mul", query, graph.constant(1 / math.sqrt(DIMENSIONS // HEADS)))
    scores = graph.node("Add", graph.node("MatMul", scaled, key), bias)
    context = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    joined = graph.constant([0, 0, DIMENSIONS], dtype=np.int64)
    return graph.node("Reshape", graph.node("Transpose", context, perm=[0, 2, 1, 3]), joined)


def _dense(graph: _Graph, tensors: Tensors, names: list[str], value: str) -> str:
    weight = np.concatenate([tensors[name + ".weight"] for name in names]).T
    bias = np.concatenate([tensors[name + ".bias"] for name in names])
    return graph.node("Add", graph.node("MatMul", value, graph.constant(weight)), graph.constant(bias))


def _normalised(graph: _Graph, tensors: Tensors, name: str, value: str) -> str:
    scale, shift = graph.constant(tensors[name + ".weight"]), graph.constant(tensors[name + ".bias"])
    return graph.node("LayerNormalization", value, scale, shift, axis=-1, epsilon=NORM_EPSILON)


def _pooled(graph: _Graph, hidden: str, mask: str) -> None:
    last = graph.constant([-1], dtype=np.int64)
    first = graph.constant([1], dtype=np.int64)
    kept = graph.node("Mul", hidden, graph.node("Unsqueeze", mask, last))
    total = graph.node("ReduceSum", kept, first, keepdims=0)
    mean = graph.node("Div", total, graph.node("ReduceSum", mask, first, keepdims=1))
    length = graph.node("ReduceL2", mean, last, keepdims=1)
    bounded = graph.node("Max", length, graph.constant(NORM_EPSILON))
    graph.nodes.append(helper.make_node("Div", [mean, bounded], ["embedding"], name="embedding"))
