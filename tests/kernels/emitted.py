"""A small module for emitters, lowered as the compile stage lowers one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import relax  # noqa: E402
from tvm.s_tir import dlight  # noqa: E402

from edgec.emitters.spec import Emitted, LibrarySpec  # noqa: E402
from edgec.passes import pipeline  # noqa: E402
from edgec.progress import Silent  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64"}
ARM = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}
ANDROID = {**ARM, "mtriple": "aarch64-linux-android24"}
IOS = {"kind": "llvm", "mtriple": "arm64-apple-ios16.0", "mcpu": "apple-a14"}
GPU = {
    "max_threads_per_block": 256,
    "max_shared_memory_per_block": 32768,
    "thread_warp_size": 1,
}
BOTH = ("shared", "system")
MODEL_LIB = "tinypy_q4f16_1"


def lowered(target: tvm.target.Target) -> tvm.IRModule:
    """``main(x: (n, 8), w: (8, 4)) = exp(x @ w)``, n at run time, in float32."""
    builder = relax.BlockBuilder()
    rows = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((rows, 8), "float32"))
    w = relax.Var("w", relax.TensorType((8, 4), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            product = builder.emit(relax.op.matmul(x, w))
            result = builder.emit_output(builder.emit(relax.op.exp(product)))
        builder.emit_func_output(result)
    mod = relax.transform.LegalizeOps()(builder.get())
    if target.kind.name != "llvm":
        with target:
            mod = dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())(mod)
    steps = [tvm.tirx.transform.BindTarget(target), *pipeline.plan_passes()]
    return pipeline.apply(mod, [*steps, *pipeline.machine_passes()], target)


def emit(
    platform: str,
    out: Path,
    tvm_target: dict[str, Any],
    forms: tuple[str, ...] = ("shared",),
    **fields: Any,
) -> Emitted:
    """Emit the module for a platform into ``out``."""
    target = tvm.target.Target(tvm_target)
    spec = LibrarySpec(MODEL_LIB, forms, **{"page_bytes": 16384, **fields})
    out.mkdir(parents=True, exist_ok=True)
    emitter = importlib.import_module(f"edgec.emitters.{platform}")
    emitted: Emitted = emitter.emit(lowered(target), target, out, spec, Silent())
    return emitted


def run(module: Any) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What the library computes on this CPU, and what is right."""
    generator = np.random.default_rng(0)
    x, w = (generator.standard_normal(shape).astype(np.float32) for shape in ((3, 8), (8, 4)))
    machine = relax.VirtualMachine(module, tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(w)).numpy()
    return result, np.exp(x.astype(np.float64) @ w.astype(np.float64))
