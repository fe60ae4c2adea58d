"""From an exported torch program to Relax, with every weight as a constant.

TVM translates the operators one by one. Where its idea of a shape is weaker than torch's (sizes
that vary often get lost), the shape that torch traced is stated in its place: later passes plan
memory with it, and the virtual machine checks it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch.utils._sympy import functions as torch_sympy
from tvm import relax, sym, tirx
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from edgec.errors import UnsupportedModelError
from edgec.importers.raw import RawModel, constant_key
from edgec.importers.unsupported import refuse_operators

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx
    from torch.export import ExportedProgram

    from edgec.importers.imported import Signature

_ALIGNMENT = 64
"""Bytes that code for CPUs assumes of the start of a tensor."""


def translate(
    program: ExportedProgram, signature: Signature, outputs: Sequence[str], where: str
) -> RawModel:
    """Translate an exported program.

    Args:
        program: as ``torch.export`` gives it; it is decomposed into core operators here.
        signature: its inputs; sizes that vary have a name.
        outputs: names of its outputs.
        where: the model, for messages.

    Raises:
        UnsupportedModelError: operators that TVM has no translation for.
    """
    core = program.run_decompositions()
    importer = _Importer()
    refuse_operators(
        (
            str(node.target.__name__)
            for node in core.graph.nodes
            if node.op == "call_function" and not importer.knows(node)
        ),
        where=where,
        remedy="import an ONNX file of the model, or rewrite that part of it",
    )
    mod = importer.from_exported_program(
        core,
        keep_params_as_input=False,
        unwrap_unit_return_tuple=False,
        no_bind_return_tuple=False,
        custom_convert_map=None,
    )
    named = [*core.named_parameters(), *core.named_buffers(), *core.constants.items()]
    names: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, tensor in named:
        if isinstance(tensor, torch.Tensor):
            names.setdefault(constant_key(importer.tensor(tensor)), str(name))
    return RawModel(mod, signature.inputs, tuple(outputs), dict(signature.bounds), names)


class _Importer(ExportedProgramImporter):  # type: ignore[misc]
    """TVM's translation, with torch's shapes and without copies of aligned weights."""

    def __init__(self) -> None:
        self._sizes: dict[str, Any] = {}
        self._tensors: dict[tuple[int, tuple[int, ...], str], Any] = {}
        self._analyzer = sym.Analyzer()
        super().__init__()

    def knows(self, node: fx.Node) -> bool:
        """Whether an operator has a translation; branches and loops have none here."""
        name = node.target.__name__  # type: ignore[union-attr]
        return name in self.convert_map and name not in _CONTROL_FLOW

    def tensor(self, value: torch.Tensor) -> Any:
        """TVM's view of a tensor's memory, or of an aligned copy; the same one each time."""
        key = (value.data_ptr(), tuple(value.shape), str(value.dtype))
        if key not in self._tensors:
            dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
            if not dense.is_contiguous() or dense.data_ptr() % _ALIGNMENT:
                dense = torch.empty(dense.shape, dtype=dense.dtype).copy_(dense)
            self._tensors[key] = super()._convert_pytorch_tensor_to_tvm(dense)
        return self._tensors[key]

    def _convert_pytorch_tensor_to_tvm(self, tensor_value: torch.Tensor) -> Any:
        return self.tensor(tensor_value)

    def create_convert_map(self) -> dict[str, Callable[[fx.Node], Any]]:
        """TVM's table, each entry followed by a look at the shape of what it returned."""
        table = super().create_convert_map()
        table["slice.Tensor"] = self._slice_as_traced
        return {name: self._shaped(convert) for name, convert in table.items()}

    def create_input_vars(self, exported_program: ExportedProgram) -> Any:
        """Remember which variable stands for which of torch's sizes."""
        created = super().create_input_vars(exported_program)
        for node in exported_program.graph.find_nodes(op="placeholder"):
            variable = created[1].get(node.name)
            if variable is None:
                continue
            for size, ours in zip(node.meta["val"].shape, variable.ty.shape.values, strict=True):
                if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                    self._sizes.setdefault(str(size.node.expr), ours)
        return created

    def _slice_as_traced(self, node: fx.Node) -> Any:
        """A slice by the size that torch knows it has, without the case of an end before the start.

        That case would stand in the shape of everything computed from a slice of varying size.
        """
        given: list[Any] = [*node.args, *[None] * (5 - len(node.args))]
        source, start, step = given[0], given[2], 1 if given[4] is None else given[4]
        data = self.env[source]
        axis = int(given[1] or 0) % len(node.meta["val"].shape)
        length = self._size(source.meta["val"].shape[axis])
        count = self._size(node.meta["val"].shape[axis])
        start = 0 if start is None else start
        if length is None or count is None or not isinstance(start, int):
            return self._slice(node)
        if start < 0:
            start = self._analyzer.simplify(length + start)
        end = self._analyzer.simplify(start + count * step)
        return self.block_builder.emit(
            relax.op.strided_slice(data, [axis], [start], [end], [step], assume_inbound=True)
        )

    def _shaped(self, convert: Callable[[fx.Node], Any]) -> Callable[[fx.Node], Any]:
        def converted(node: fx.Node) -> Any:
            result = convert(node)
            return self._state_shape(result, node)

        return converted

    def _state_shape(self, result: Any, node: fx.Node) -> Any:
        """The result, its type narrowed to what torch knows if TVM knows less."""
        value = node.meta.get("val")
        known = isinstance(result, relax.Expr) and isinstance(result.ty, relax.TensorType)
        if not known or not isinstance(value, torch.Tensor):
            return result
        wanted = [self._size(size) for size in value.shape]
        if any(size is None for size in wanted):
            return result
        shape = result.ty.shape
        if shape is not None and len(shape.values) == len(wanted):
            sizes = list(zip(shape.values, wanted, strict=True))
            if all(self._analyzer.can_prove_equal(ours, theirs) for ours, theirs in sizes):
                return result
            assert not any(_differ(ours, theirs) for ours, theirs in sizes), node
        return self.block_builder.match_cast(result, relax.TensorType(wanted, str(result.ty.dtype)))

    def _size(self, size: Any) -> Any:
        if not isinstance(size, torch.SymInt):
            return tirx.IntImm("int64", int(size))
        return self._expression(size.node.expr)

    def _expression(self, expr: Any) -> Any:
        """A size of torch's as one of TVM's; None for forms that have no partner."""
        if isinstance(expr, sympy.Integer):
            return tirx.IntImm("int64", int(expr))
        if isinstance(expr, sympy.Symbol):
            return self._sizes.get(str(expr))
        operation = _OPERATIONS.get(type(expr))
        arguments = [self._expression(argument) for argument in expr.args]
        if operation is None or any(argument is None for argument in arguments):
            return None
        result = arguments[0]
        for argument in arguments[1:]:
            result = operation(result, argument)
        return result


_CONTROL_FLOW = {"cond", "while_loop", "_assert_async.msg", "_assert_async.default"}

_OPERATIONS: dict[Any, Callable[[Any, Any], Any]] = {
    sympy.Add: lambda a, b: a + b,
    sympy.Mul: lambda a, b: a * b,
    sympy.Min: tirx.min,
    sympy.Max: tirx.max,
    torch_sympy.Min: tirx.min,
    torch_sympy.Max: tirx.max,
    torch_sympy.FloorDiv: tirx.floordiv,
    torch_sympy.CleanDiv: tirx.floordiv,
    torch_sympy.Mod: tirx.floormod,
    torch_sympy.PythonMod: tirx.floormod,
}


def _differ(ours: Any, theirs: Any) -> bool:
    both = isinstance(ours, tirx.IntImm) and isinstance(theirs, tirx.IntImm)
    return both and int(ours) != int(theirs)


def export(
    module: torch.nn.Module,
    arguments: Sequence[torch.Tensor],
    dynamic: tuple[dict[int, Any], ...],
    where: str,
) -> ExportedProgram:
    """Trace a module.

    Args:
        module: in evaluation mode.
        arguments: examples; sizes that vary must be at least 2, torch takes 1 for fixed.
        dynamic: for each argument, which of its sizes vary, by axis.
        where: the model, for messages.

    Raises:
        UnsupportedModelError: the module can't be traced, or not with those varying sizes.
    """
    kinds = {parameter.kind for parameter in inspect.signature(module.forward).parameters.values()}
    shapes: Any = (dynamic,) if inspect.Parameter.VAR_POSITIONAL in kinds else dynamic
    try:
        with torch.no_grad():
            return torch.export.export(module, tuple(arguments), dynamic_shapes=shapes)
    except Exception as error:  # torch raises many kinds for what a module does
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise UnsupportedModelError(
            f"torch can't trace the model: {type(error).__name__}: {reason.strip()[:400]}",
            where=where,
            remedy="rewrite that part of it, give fixed sizes, or import an ONNX file of the model",
        ) from error
