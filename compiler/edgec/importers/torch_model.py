"""A torch module with known inputs: traced, translated, and run as it is for reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgec.importers.declared import example_sizes
from edgec.importers.imported import ImportedModel, Signature, TensorType
from edgec.importers.raw import TRANSPOSED
from edgec.verification.rounding import rounding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch.export import ExportedProgram


class TorchModel:
    """A module of float32 weights in evaluation mode.

    Args:
        module: takes the inputs in order, returns tensors.
        signature: of the inputs; the module is called with just these types.
        outputs: names of what it returns; by default those of a returned dictionary, else
            ``output`` and a number.
        where: the model, for messages.
        program: the module as exported already, with the sizes of the signature.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        signature: Signature,
        *,
        outputs: Sequence[str] | None = None,
        where: str,
        program: ExportedProgram | None = None,
    ) -> None:
        self.module = module
        self.signature = signature
        self._outputs = outputs
        self._where = where
        self._program = program

    def imported(self) -> ImportedModel:
        """See :meth:`edgec.importers.imported.SourceModel.imported`."""
        # TVM is loaded after torch here, and with it.
        from edgec.importers.normalize.steps import normalized  # noqa: PLC0415
        from edgec.importers.torch_export import export, translate  # noqa: PLC0415

        program = self._program
        if program is None:
            arguments, dynamic = examples(self.signature)
            program = export(self.module, arguments, dynamic, self._where)
        names = self._outputs or output_names(program)
        return normalized(translate(program, self.signature, names, self._where))

    def run(
        self,
        inputs: Sequence[NDArray[np.generic]],
        replaced: Mapping[str, NDArray[np.generic]] | None = None,
        rounded: Mapping[str, int] | None = None,
    ) -> list[NDArray[np.generic]]:
        """See :meth:`edgec.importers.imported.SourceModel.run`."""
        types = [getattr(torch, item.dtype) for item in self.signature.inputs]
        arguments = tuple(
            torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
            for array, dtype in zip(inputs, types, strict=True)
        )
        tensors = _tensors(replaced or {})
        groups = {
            tensors[name.removesuffix(TRANSPOSED)].data_ptr(): group
            for name, group in (rounded or {}).items()
        }
        with torch.no_grad(), rounding(groups):
            result: Any = torch.func.functional_call(
                self.module, tensors, arguments, tie_weights=True
            )
        leaves = torch.utils._pytree.tree_leaves(result)  # noqa: SLF001 - torch's own for export
        return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _tensors(replaced: Mapping[str, NDArray[np.generic]]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, array in replaced.items():
        values = array.T if name.endswith(TRANSPOSED) else array
        tensors[name.removesuffix(TRANSPOSED)] = torch.from_numpy(np.ascontiguousarray(values))
    return tensors


def examples(signature: Signature) -> tuple[list[torch.Tensor], tuple[dict[int, Any], ...]]:
    """Tensors to trace with, and which of their sizes vary, as ``torch.export`` takes them."""
    sizes = example_sizes(signature.bounds)
    dims = {
        name: torch.export.Dim(_identifier(name), max=bound)
        for name, bound in signature.bounds.items()
    }
    arguments = [
        torch.zeros(
            [size if isinstance(size, int) else sizes[size] for size in item.shape],
            dtype=getattr(torch, item.dtype),
        )
        for item in signature.inputs
    ]
    dynamic = tuple(
        {axis: dims[size] for axis, size in enumerate(item.shape) if isinstance(size, str)}
        for item in signature.inputs
    )
    return arguments, dynamic


def _identifier(name: str) -> str:
    return name if name.isidentifier() else "".join(c if c.isalnum() else "_" for c in f"d_{name}")


def output_names(program: ExportedProgram) -> tuple[str, ...]:
    """Keys of a returned dictionary, or ``output``, ``output_1`` and so on."""
    spec = program.call_spec.out_spec
    count = len(program.graph_signature.user_outputs)
    keys = getattr(spec, "context", None) if spec is not None else None
    if (
        isinstance(keys, (list, tuple))
        and len(keys) == count
        and all(isinstance(key, str) for key in keys)
    ):
        return tuple(keys)
    return tuple("output" if index == 0 else f"output_{index}" for index in range(count))


def tensor_type(name: str, tensor: torch.Tensor) -> TensorType:
    """The type of an example."""
    return TensorType(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
