"""Add the functions that engines call on logits before they sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, tirx

if TYPE_CHECKING:
    from edgec.scheduling.kernels.logits import LogitKernels


@tvm.transform.module_pass(opt_level=0, name="AttachLogitFunctions")
class AttachLogitFunctions:
    """``softmax_with_temperature`` and ``apply_{logit_bias,penalty,bitmask}_inplace``.

    Args: vocab_size: entries of the logits; kernels: the platform's, for that vocabulary.
    """

    def __init__(self, vocab_size: int, kernels: LogitKernels) -> None:
        self.vocab_size = vocab_size
        self.kernels = kernels

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Add the four functions; the in-place ones are PrimFuncs that engines call directly."""
        builder = relax.BlockBuilder(mod)
        batch = tirx.Var("batch_size", "int64")
        logits = relax.Var("logits", relax.TensorType((batch, 1, self.vocab_size), "float32"))
        temperature = relax.Var("temperature", relax.TensorType((batch,), "float32"))
        with builder.function("softmax_with_temperature", [logits, temperature]):
            with builder.dataflow():
                results: list[relax.Var] = []
                for name, function in self.kernels.softmax:
                    result = function.params[-1]
                    call = relax.call_tir(
                        builder.add_func(function, name),
                        [logits, temperature, *results],
                        out_ty=relax.TensorType((batch, *result.shape[1:]), result.dtype),
                    )
                    results.append(builder.emit(call))
                output = builder.emit_output(results[-1])
            builder.emit_func_output(output)
        mod = builder.finalize()
        for function in self.kernels.in_place:
            mod[function.attrs["global_symbol"]] = function
        return mod
