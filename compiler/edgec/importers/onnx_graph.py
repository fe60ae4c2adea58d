"""From an ONNX graph to Relax, with every weight as a constant.

TVM translates the operators one by one. Where a size that varies gets lost on the way (graphs compute
shapes with operators on tensors), the shape that the graph itself states for the result takes
its place.
"""

from __future__ import annotations

import ast
import contextlib
import io
import operator
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, sym, tirx
from tvm.relax.frontend.onnx import onnx_frontend

from edgec.errors import UnsupportedModelError
from edgec.importers.raw import RawModel, constant_key
from edgec.importers.unsupported import refuse_operators

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

    from edgec.importers.imported import Signature

REMEDY = "import the torch module that it comes from, or export it without them"


def translate(model: onnx.ModelProto, signature: Signature, where: str) -> RawModel:
    """Translate a graph.

    Args:
        model: with its weights in memory, and no ``Constant`` of a tensor.
        signature: its inputs; sizes that vary have a name.
        where: the model, for messages.

    Raises:
        UnsupportedModelError: operators that TVM has no translation for, at all or in the
            version that the graph uses, or that it can't translate as they are used.
    """
    opset = _opset(model)
    refuse_operators(_unknown(model.graph, opset), where=where, remedy=REMEDY)
    variables = {name: tirx.Var(name, "int64") for name in signature.bounds}
    shapes = {
        item.name: [size if isinstance(size, int) else variables[size] for size in item.shape]
        for item in signature.inputs
    }
    importer = _Importer(shapes, _stated_shapes(model, signature, variables))
    # TVM prints what it failed on.
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            mod = importer.from_onnx(_nodes_named_by_output(model.graph), opset)
        except (ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as e:
            reason = printed.getvalue().split(",", 1)[0] or type(e).__name__
            detail = str(e).strip().splitlines()
            raise UnsupportedModelError(
                f"{reason}: {detail[-1][:300] if detail else ''}", where=where, remedy=REMEDY
            ) from e
    names = {
        constant_key(importer._nodes[tensor.name].value): tensor.name  # noqa: SLF001 - no other way
        for tensor in model.graph.initializer
        if isinstance(importer._nodes.get(tensor.name), tvm.ir.GenericConst)  # noqa: SLF001
    }
    outputs = tuple(item.name for item in model.graph.output)
    return RawModel(mod, signature.inputs, outputs, dict(signature.bounds), names)


def _opset(model: onnx.ModelProto) -> int:
    versions = [item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}]
    return int(versions[0]) if versions else 1


def _unknown(graph: onnx.GraphProto, opset: int) -> Iterator[str]:
    table: dict[str, Any] = onnx_frontend._get_convert_map()  # noqa: SLF001 - it has no public name
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        converter = table.get(node.op_type)
        # Branches and loops have translations, but none that is a function without branches.
        if converter is None or any(item.HasField("g") for item in node.attribute):
            yield node.op_type
            continue
        try:
            converter.get_converter(opset)
        except NotImplementedError:
            yield f"{node.op_type} of opset {opset}"


class _Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
    """TVM's translation, with the shapes that the graph states.

    Args:
        inputs: shapes of the inputs.
        stated: of results, by name.
    """

    def __init__(self, inputs: Mapping[str, list[Any]], stated: Mapping[str, list[Any]]) -> None:
        super().__init__(dict(inputs), None)
        self._stated = stated
        self._analyzer = sym.Analyzer()

    def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
        result = super()._convert_operator(op_name, inputs, attrs, opset)
        wanted = self._stated.get(str(attrs["tvm_custom"]["name"]))
        if wanted is None or not isinstance(result, relax.Expr):
            return result
        ty = result.ty
        if not isinstance(ty, relax.TensorType) or isinstance(result, tvm.ir.GenericConst):
            return result
        shape = ty.shape
        if shape is not None and len(shape.values) == len(wanted):
            sizes = zip(shape.values, wanted, strict=True)
            if all(self._analyzer.can_prove_equal(ours, theirs) for ours, theirs in sizes):
                return result
        value = result if isinstance(result, relax.Var) else self.bb.emit(result)
        return self.bb.match_cast(value, relax.TensorType(wanted, str(ty.dtype)))


def _nodes_named_by_output(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The graph; nodes with one result have its name, which is what a translation gets to see."""
    for node in graph.node:
        node.name = node.output[0] if len(node.output) == 1 else ""
    return graph


def _stated_shapes(
    model: onnx.ModelProto, signature: Signature, variables: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Shapes of results that the graph states, as far as they follow from those of the inputs."""
    sizes: dict[str, Any] = {}
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    for item, declared in zip(inputs, signature.inputs, strict=True):
        dimensions = item.type.tensor_type.shape.dim
        for dimension, size in zip(dimensions, declared.shape, strict=True):
            ours = variables[size] if isinstance(size, str) else tirx.IntImm("int64", size)
            if dimension.dim_param:
                sizes.setdefault(dimension.dim_param, ours)
            elif not dimension.HasField("dim_value") or dimension.dim_value != size:
                # The graph was made for other sizes: nothing it states can be relied on.
                return {}
    stated = {}
    for item in (*model.graph.value_info, *model.graph.output):
        if not item.type.tensor_type.HasField("shape"):
            continue
        shape = [_stated(dimension, sizes) for dimension in item.type.tensor_type.shape.dim]
        if all(size is not None for size in shape):
            stated[item.name] = shape
    return stated


def _stated(dimension: Any, sizes: Mapping[str, Any]) -> Any:
    if dimension.HasField("dim_value"):
        return tirx.IntImm("int64", int(dimension.dim_value))
    try:
        return _expression(ast.parse(dimension.dim_param, mode="eval").body, sizes)
    except (SyntaxError, ValueError):
        return None


_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: tirx.floordiv,
    ast.Mod: tirx.floormod,
}


def _expression(node: ast.AST, sizes: Mapping[str, Any]) -> Any:
    """A size such as ``4*batch``; None for what isn't made of known sizes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return tirx.IntImm("int64", node.value)
    if isinstance(node, ast.Name):
        return sizes.get(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _expression(node.left, sizes), _expression(node.right, sizes)
        if left is not None and right is not None:
            return _OPERATIONS[type(node.op)](left, right)
    return None
