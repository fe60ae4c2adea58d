"""Add ``alloc_embedding_tensor``: engines learn the hidden size from its result."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax


@tvm.transform.module_pass(opt_level=0, name="AttachAllocEmbedding")
class AttachAllocEmbedding:
    """A function without arguments that returns an empty ``(prefill_chunk, hidden)`` tensor."""

    def __init__(self, prefill_chunk: int, hidden_size: int, dtype: str) -> None:
        self.shape = (prefill_chunk, hidden_size)
        self.dtype = dtype

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Add the function."""
        builder = relax.BlockBuilder(mod)
        with builder.function("alloc_embedding_tensor", []):
            tensor = builder.emit(
                relax.op.builtin.alloc_tensor(
                    relax.ShapeExpr(list(self.shape)), self.dtype, runtime_device_index=0
                )
            )
            builder.emit_func_output(tensor)
        return builder.finalize()
