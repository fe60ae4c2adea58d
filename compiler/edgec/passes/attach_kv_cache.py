"""Add ``create_tir_paged_kv_cache``, with TVM's attention kernels for the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.frontend.nn.llm.kv_cache import RopeMode, TIRPagedKVCache

from edgec.models.rope import LLAMA3
from edgec.scheduling.kernels.split_rotary import split_rotary

if TYPE_CHECKING:
    from edgec.models.kv_cache import KVCacheSpec

FUNCTION = "create_tir_paged_kv_cache"
_CONFIG_ENTRIES = 5
_ROTATION = "fused_rope"
_TREES, _SLIDING = "tree_attn", "_sliding_window"
"""Parts of the names of TVM's kernels for token trees, and for windows that slide. They know neither soft
caps nor layers' windows."""


@tvm.transform.module_pass(opt_level=0, name="AttachKVCache")
class AttachKVCache:
    """Takes five one-element shapes: sequences, tokens, prefill chunk, page size, sliding 0/1.

    Args:
        spec: of the cache.
        target: what TVM makes its kernels for.
        sizes: number of query heads and size of a head that the runtime is told of, where all kernels
            are replaced and hold something else than heads; None: the cache's own.
    """

    def __init__(
        self,
        spec: KVCacheSpec,
        target: tvm.target.Target,
        sizes: tuple[int, int] | None = None,
    ) -> None:
        self.spec = spec
        self.target = target
        self.sizes = sizes
        trees, sliding = spec.plain, spec.plain
        if sizes is not None:
            trees, sliding = False, spec.slides
        self.unknown = (*([] if trees else [_TREES]), *([] if sliding else [_SLIDING]))

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Build the function beside the module's own."""
        spec = self.spec
        heads, head_dim = self.sizes or (spec.heads, spec.head_dim)
        names = (
            "max_batch_size",
            "max_total_seq_len",
            "prefill_chunk_size",
            "page_size",
            "support_sliding_window",
        )
        sizes = [tirx.Var(name, "int64") for name in names]
        builder = relax.BlockBuilder(mod)
        parameters = [
            relax.Var(f"{name}_", relax.ShapeType([size]))
            for name, size in zip(names, sizes, strict=True)
        ]
        with builder.function(FUNCTION, parameters):
            with builder.dataflow():
                cache = TIRPagedKVCache(
                    "mha",
                    *sizes,
                    layer_partition=relax.ShapeExpr([0, spec.layers]),
                    num_hidden_layers=spec.layers,
                    num_attention_heads=heads,
                    num_key_value_heads=spec.kv_heads,
                    qk_head_dim=head_dim,
                    v_head_dim=head_dim,
                    mla_original_qk_head_dim=0,
                    mla_original_v_head_dim=0,
                    rope_mode=RopeMode.NORMAL if spec.rotates else RopeMode.NONE,
                    rope_scale=spec.rope.position_scale if spec.rotates else 1,
                    rope_theta=spec.rope.theta,
                    rope_scaling=_scaling(spec) if self.sizes is None else {},
                    rope_ext_factors=_factors(spec),
                    rotary_dim=spec.rope.rotary_dim if self.sizes is None else head_dim,
                    enable_disaggregation=False,
                    dtype=spec.dtype,
                    target=self.target,
                )
                output = builder.emit_output(cache._expr)  # noqa: SLF001 - nn has no accessor
            builder.emit_func_output(output)
        mod = builder.finalize()
        name = next(var for var in mod.get_global_vars() if var.name_hint == FUNCTION)
        mod[name] = _Arguments(mod, self.unknown).visit_expr(mod[name])
        for var in mod.get_global_vars():
            if _is_one_of(self.unknown, var):
                del mod[var]
        if spec.rotates and spec.rope.has_factors and self.sizes is None:
            kernel = next(v for v in mod.get_global_vars() if v.name_hint == _ROTATION)
            mod.update_func(
                kernel,
                split_rotary(spec.heads, spec.kv_heads, spec.head_dim, spec.rope, spec.dtype),
            )
        return mod


def _scaling(spec: KVCacheSpec) -> dict[str, Any]:
    """What TVM's kernels are made for, beside a base and a scale of positions.

    Where pairs have factors TVM's rotation is replaced, and kernels that rotate inside attention
    aren't called.
    """
    return dict(spec.rope.scaling) if spec.rotates and spec.rope.kind == LLAMA3 else {}


def _factors(spec: KVCacheSpec) -> relax.Expr:
    """The factors of pairs as the cache hands them to the rotation: for long texts, then for short ones.

    They are the same, so that a runtime with a rotation of its own would do what ours does.
    """
    if not spec.rotates or not spec.rope.has_factors:
        return relax.prim_value(0)
    return relax.const(np.array(2 * spec.rope.factors(), "float32"))


@mutator
class _Arguments(PyExprMutator):  # type: ignore[misc]
    """Change what the constructor hands to the runtime.

    It drops the sixth cache-config entry, the window of sliding layers: runtimes from before August
    2026 insist on five entries; newer ones take five or six. It leaves out kernels that don't know what
    the cache holds: the runtime refuses a call that needs them.
    """

    def __init__(self, mod: tvm.IRModule, unknown: tuple[str, ...]) -> None:
        super().__init__(mod)
        self._unknown = unknown

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        position = next(
            (i for i, arg in enumerate(call.args) if isinstance(arg, relax.ShapeExpr)), None
        )
        if position is None or len(call.args[position].values) < _CONFIG_ENTRIES:
            return call
        arguments = [
            relax.Tuple([]) if self._leaves_out(argument) else argument for argument in call.args
        ]
        arguments[position] = relax.ShapeExpr(list(arguments[position].values)[:_CONFIG_ENTRIES])
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)

    def _leaves_out(self, argument: Any) -> bool:
        """Whether an argument of the constructor is a backend's name and such a kernel."""
        return isinstance(argument, relax.Tuple) and any(
            isinstance(field, tvm.ir.GlobalVar) and _is_one_of(self._unknown, field)
            for field in argument.fields
        )


def _is_one_of(parts: tuple[str, ...], var: tvm.ir.GlobalVar) -> bool:
    return any(part in var.name_hint for part in parts)
