"""An ONNX graph whose linear layers round their inputs to 8 bits: see ``verification.rounding``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgec.verification.rounding import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAYERS = ("MatMul", "Gemm")
# From this version on, axes are an input.
_AXES_AS_INPUT = 18
# Less than any scale that a group of zeros isn't the reason of.
_LEAST = np.float32(1e-38)


def round_inputs(model: onnx.ModelProto, groups: Mapping[str, int]) -> None:
    """Change a model in place.

    Args:
        model: in float32, of opset 13 or newer.
        groups: how many columns of activations share a scale, by the name of the weights.
    """
    graph = model.graph
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    made: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in _LAYERS and node.input[1] in groups:
            key = (node.input[0], groups[node.input[1]])
            if key not in made:
                made[key] = f"{key[0]}/rounded_{key[1]}"
                nodes += _rounded(graph, *key, made[key], opset)
            node.input[0] = made[key]
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _rounded(
    graph: onnx.GraphProto, x: str, group: int, out: str, opset: int
) -> list[onnx.NodeProto]:
    """The nodes that make the tensor ``out`` of ``x``."""

    def constant(name: str, value: object, dtype: str) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, dtype), f"{out}/{name}")
        graph.initializer.append(tensor)
        return str(tensor.name)

    def node(kind: str, *inputs: str, to: str = "", **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, list(inputs), [to or f"{out}/{kind}"], **attributes)

    early = opset < _AXES_AS_INPUT
    axes = () if early else (constant("axes", [1], "int64"),)
    axis: dict[str, Any] = {"axes": [1]} if early else {}
    by_groups, scales = f"{out}/Reshape", f"{out}/scales"
    return [
        node("Shape", x),
        node("Reshape", x, constant("groups", [-1, group], "int64")),
        node("Abs", by_groups),
        node("ReduceMax", f"{out}/Abs", *axes, keepdims=1, **axis),
        node("Div", f"{out}/ReduceMax", constant("steps", STEPS, "float32"), to=scales),
        node("Max", scales, constant("least", _LEAST, "float32")),
        node("Div", by_groups, f"{out}/Max"),
        node("Round", f"{out}/Div"),
        node("Mul", f"{out}/Round", scales),
        node("Reshape", f"{out}/Mul", f"{out}/Shape", to=out),
    ]
