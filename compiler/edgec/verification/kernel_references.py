"""The reference of each kernel, compiled for this machine's CPU.

They come as functions in loops with the arguments of the kernels they stand for: see
``edgec.passes.reference_kernels``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.errors import VerificationError
from edgec.ir.load import load_tvm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

Argument = Any
"""A numpy array, or a number."""


class References:
    """Reference functions by the name of their kernel.

    Args:
        path: ``kernels.json`` of an artifact.

    Raises:
        VerificationError: the file can't be read.
    """

    def __init__(self, path: Path) -> None:
        load_tvm()
        import tvm  # noqa: PLC0415 - after load_tvm

        self._tvm = tvm
        try:
            mod = tvm.ir.load_json(path.read_text())
        except Exception as error:
            raise VerificationError(
                "the kernels' references can't be read",
                where=str(path),
                remedy="build the artifact again with edgec build",
            ) from error
        self.names = frozenset(var.name_hint for var in mod.get_global_vars())
        self._functions = _compiled(tvm, mod) if self.names else None

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def run(self, name: str, arguments: Sequence[Argument]) -> list[npt.NDArray[np.generic]]:
        """Call a reference on copies.

        Args:
            name: of the kernel.
            arguments: as the kernel got them; arrays are not changed.

        Returns:
            The arrays among the arguments, as the function left them.
        """
        tvm = self._tvm
        assert self._functions is not None, name
        passed = [
            item if isinstance(item, int | float) else tvm.runtime.tensor(item, tvm.cpu())
            for item in arguments
        ]
        self._functions[name](*passed)
        return [item.numpy() for item in passed if not isinstance(item, int | float)]


def _compiled(tvm: Any, mod: Any) -> Any:
    host = {"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()}
    # TVM's common-subexpression pass can leave a use before its definition.
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_cse_tir": True}):
        return tvm.tirx.build(mod, target=tvm.target.Target(host))
