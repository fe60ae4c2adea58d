"""Add the functions that engines call on logits before they sample."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx

from edgec.scheduling.kernels import cpu_logits


@tvm.transform.module_pass(opt_level=0, name="AttachLogitFunctions")
class AttachLogitFunctions:
    """``softmax_with_temperature`` and ``apply_{logit_bias,penalty,bitmask}_inplace``."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Add the four functions; the in-place ones are PrimFuncs that engines call directly."""
        vocab = self.vocab_size
        builder = relax.BlockBuilder(mod)
        batch = tirx.Var("batch_size", "int64")
        logits = relax.Var("logits", relax.TensorType((batch, 1, vocab), "float32"))
        temperature = relax.Var("temperature", relax.TensorType((batch,), "float32"))
        kernel = builder.add_func(cpu_logits.softmax_with_temperature(vocab), "softmax")
        with builder.function("softmax_with_temperature", [logits, temperature]):
            with builder.dataflow():
                probs = relax.call_tir(
                    kernel,
                    [logits, temperature],
                    out_ty=relax.TensorType((batch, 1, vocab), "float32"),
                )
                output = builder.emit_output(probs)
            builder.emit_func_output(output)
        mod = builder.finalize()
        for make in (
            cpu_logits.apply_logit_bias,
            cpu_logits.apply_penalty,
            cpu_logits.apply_bitmask,
        ):
            function = make(vocab)
            mod[function.attrs["global_symbol"]] = function
        return mod
