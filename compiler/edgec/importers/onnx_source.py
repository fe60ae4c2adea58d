"""An ONNX file, with its weights inside or beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.importers.declared import declared_signature
from edgec.importers.imported import ImportedModel, Signature, TensorType
from edgec.importers.onnx_rounded import round_inputs
from edgec.importers.raw import TRANSPOSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def open_onnx(
    path: Path, *, declared: Sequence[TensorType], bounds: Mapping[str, int]
) -> OnnxModel:
    """Read an ONNX file and the weights it names beside it.

    Raises:
        CheckpointError: it is missing, damaged, or names files that aren't below its folder.
        UsageError: what is declared doesn't fit the graph.
    """
    try:
        model = onnx.load(str(path))
    except FileNotFoundError as error:
        raise CheckpointError("the file is missing", where=str(error.filename or path)) from error
    except Exception as error:  # protobuf and onnx raise their own kinds
        raise CheckpointError(
            f"onnx can't read it: {type(error).__name__}: {str(error)[:300]}",
            where=str(path),
            remedy="export the model again",
        ) from error
    return OnnxModel(model, str(path), declared=declared, bounds=bounds)


class OnnxModel:
    """A graph with known inputs.

    Args:
        model: with all weights in memory.
        where: the model, for messages.
        declared: shapes of inputs where the graph doesn't say or others are wanted.
        bounds: the largest size of each dimension that varies.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        where: str,
        *,
        declared: Sequence[TensorType] = (),
        bounds: Mapping[str, int] | None = None,
    ) -> None:
        self.model = model
        self.where = where
        _constants_to_initializers(model.graph)
        self._types = _input_types(model.graph, where)
        own = Signature(tuple(_at_interface(item) for item in self._types), {})
        self.signature = declared_signature(own, declared, bounds or {})

    def imported(self) -> ImportedModel:
        """See :meth:`edgec.importers.imported.SourceModel.imported`."""
        from edgec.ir.load import load_tvm  # noqa: PLC0415

        load_tvm()
        from edgec.importers.normalize.steps import normalized  # noqa: PLC0415 - after load_tvm
        from edgec.importers.onnx_graph import translate  # noqa: PLC0415

        return normalized(translate(self.model, self.signature, self.where))

    def run(
        self,
        inputs: Sequence[NDArray[np.generic]],
        replaced: Mapping[str, NDArray[np.generic]] | None = None,
        rounded: Mapping[str, int] | None = None,
    ) -> list[NDArray[np.generic]]:
        """See :meth:`edgec.importers.imported.SourceModel.run`."""
        import onnxruntime  # noqa: PLC0415 - only for reference

        model = _with_weights(self.model, replaced or {})
        if rounded:
            names = {name.removesuffix(TRANSPOSED): group for name, group in rounded.items()}
            round_inputs(model, names)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        feeds = {
            item.name: np.ascontiguousarray(array.astype(item.dtype))
            for item, array in zip(self._types, inputs, strict=True)
        }
        return [np.asarray(result) for result in session.run(None, feeds)]


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Name the tensors of ``Constant`` nodes as the weights they may be."""
    rest = []
    for node in graph.node:
        value = next((item for item in node.attribute if item.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            rest.append(node)
            continue
        tensor = graph.initializer.add()
        tensor.CopyFrom(value.t)
        tensor.name = node.output[0]
    if len(rest) != len(graph.node):
        del graph.node[:]
        graph.node.extend(rest)


def _input_types(graph: onnx.GraphProto, where: str) -> tuple[TensorType, ...]:
    """The inputs; a size that the graph doesn't say is an empty text."""
    weights = {tensor.name for tensor in graph.initializer}
    types = []
    for item in graph.input:
        if item.name in weights:
            continue
        tensor = item.type.tensor_type
        if not tensor.elem_type or not tensor.HasField("shape"):
            raise UnsupportedModelError(
                f"the input {item.name} is no tensor of known rank", where=where
            )
        sizes = tuple(_size(dimension) for dimension in tensor.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        types.append(TensorType(item.name, sizes, str(dtype)))
    return tuple(types)


def _size(dimension: Any) -> int | str:
    return int(dimension.dim_value) if dimension.HasField("dim_value") else str(dimension.dim_param)


def _at_interface(item: TensorType) -> TensorType:
    dtype = {"int64": "int32", "float64": "float32"}.get(item.dtype, item.dtype)
    return TensorType(item.name, item.shape, dtype)


def _with_weights(
    model: onnx.ModelProto, replaced: Mapping[str, NDArray[np.generic]]
) -> onnx.ModelProto:
    if not replaced:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    values = {
        name.removesuffix(TRANSPOSED): array.T if name.endswith(TRANSPOSED) else array
        for name, array in replaced.items()
    }
    for tensor in changed.graph.initializer:
        if tensor.name in values:
            array = np.ascontiguousarray(values[tensor.name]).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return changed
