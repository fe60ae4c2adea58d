"""Add ``_metadata``, the JSON from which engines learn what a library needs."""

from __future__ import annotations

import json
from typing import Any

import tvm
from tvm import relax


@tvm.transform.module_pass(opt_level=0, name="AttachMetadata")
class AttachMetadata:
    """A function without arguments that returns the metadata as a JSON string."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.metadata = metadata

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Add the function."""
        builder = relax.BlockBuilder(mod)
        with builder.function("_metadata", []):
            builder.emit_func_output(tvm.ir.StringImm(json.dumps(self.metadata, sort_keys=True)))
        return builder.finalize()
