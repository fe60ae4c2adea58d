"""What the pass pipeline promises of every module that goes to code generation."""

from __future__ import annotations

import re

import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm.script.ir_builder import IRBuilder  # noqa: E402
from tvm.tirx.script import builder as T  # noqa: E402, N812 - TVMScript's own name

from edgec.models import llama  # noqa: E402
from edgec.passes import pipeline  # noqa: E402
from edgec.scheduling.kernels import HAND_WRITTEN  # noqa: E402
from edgec.scheduling.report import kernel_sources, scheduled_kernels  # noqa: E402

pytestmark = pytest.mark.slow

CONFIG = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def test_kernels_are_scheduled_and_free_of_aliases() -> None:
    model = llama.build(llama.Config.from_hf(CONFIG), "float32")
    mod, _ = model.export_tvm(spec=model.export_spec())
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})
    lowering = pipeline.Lowering(
        cache=model.cache_spec,
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        dtype=model.dtype,
        prefill_chunk=32,
        max_batch_size=2,
        stored_weights={},
        vector_bits=256,
    )
    ready: frozenset[str] = frozenset()
    for _, passes in pipeline.cpu_phases(lowering, target):
        ready = scheduled_kernels(mod)
        mod = pipeline.apply(mod, passes, target)
    sources = kernel_sources(ready, mod)
    assert set(sources.values()) == {"hand-written", "rule", "tvm-kv-cache"}
    for name in ("batch_decode_paged_kv_cpu", "gemv_float32_128x64", "softmax"):
        assert sources[name] == "hand-written"
    mod = pipeline.apply(mod, pipeline.plan_passes() + pipeline.machine_passes(), target)
    primitives = {v.name_hint: f for v, f in mod.functions_items() if _is_primitive(f)}
    assert "shape_func" in primitives
    # One function without the mark costs every kernel of the module its registers.
    assert [name for name, f in primitives.items() if not f.attrs.get("tirx.noalias")] == []
    by_hand = {name: f for name, f in primitives.items() if f.attrs.get(HAND_WRITTEN)}
    assert any(name.endswith("sliding_window") for name in by_hand)
    assert {name for name, f in by_hand.items() if _shrinks(f)} == set()


def _shrinks(kernel: tvm.tirx.PrimFunc) -> bool:
    """Whether the kernel allocates more than it uses; code generation takes its word for it."""
    lower = tvm.s_tir.transform
    before = tvm.transform.Sequential(
        [
            lower.CanonicalizeLoop(),
            lower.LowerInitBlock(),
            lower.PlanAndUpdateBufferAllocationLocation(),
            lower.ConvertBlocksToOpaque(),
        ]
    )(tvm.IRModule({"main": kernel}))
    return _buffers(before) != _buffers(lower.CompactBufferAllocation()(before))


def _buffers(mod: tvm.IRModule) -> list[str]:
    """Shapes, types and scopes of what a module allocates."""
    return re.findall(r" = T\.\w*alloc_buffer\((.*)\)", mod.script())


def test_larger_buffers_than_needed_are_noticed() -> None:
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            y = T.match_buffer(T.arg("y", T.handle()), (8,), "float32")
            with T.sblock("root"):
                large = T.sblock_alloc_buffer((64,), "float32")
                with T.serial(0, 8) as i:
                    T.buffer_store(large, T.float32(1), [i])
                with T.serial(0, 8) as i:
                    T.buffer_store(y, large[i], [i])
        kernel = builder.get()
    assert _shrinks(kernel)


def _is_primitive(function: object) -> bool:
    return isinstance(function, tvm.tirx.PrimFunc)
