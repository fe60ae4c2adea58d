"""What the pass pipeline promises of every module that goes to code generation."""

from __future__ import annotations

import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.models import llama  # noqa: E402
from edgec.passes import pipeline  # noqa: E402
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


def _is_primitive(function: object) -> bool:
    return isinstance(function, tvm.tirx.PrimFunc)
