"""On a CPU with AMX, many rows take its kernel and one row that of byte products."""

from __future__ import annotations

import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import relax, tirx  # noqa: E402

from edgec.models.blocks import QUANTIZED_MATMUL  # noqa: E402
from edgec.passes.lower_linear import LowerLinear  # noqa: E402
from edgec.scheduling.kernels.cpu_linear import kernels_in_steps, linear_kernels  # noqa: E402
from edgec.target import load_target  # noqa: E402

pytestmark = pytest.mark.slow

N, K, GROUP = 64, 128, 32


def _two_layers(rows: object) -> tvm.IRModule:
    """Two linear layers that read the same activations."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, rows, K), "float32"))
    weights = [
        (
            relax.Var(f"w{i}", relax.TensorType((N // 16, K // 8, 16), "uint32")),
            relax.Var(f"s{i}", relax.TensorType((N // 16, K // GROUP, 16), "float16")),
        )
        for i in range(2)
    ]
    with builder.function("main", [x, *(item for pair in weights for item in pair)]):
        with builder.dataflow():
            outputs = [
                builder.emit(
                    relax.call_dps_packed(
                        QUANTIZED_MATMUL,
                        [x, *pair],
                        out_ty=relax.TensorType((1, rows, N), "float32"),
                    )
                )
                for pair in weights
            ]
            result = builder.emit_output(relax.Tuple(outputs))
        builder.emit_func_output(result)
    return builder.get()


def _lowered(rows: object) -> tvm.IRModule:
    target = tvm.target.Target(dict(load_target("x86-64-amx").tvm))
    return LowerLinear(linear_kernels(512, target))(_two_layers(rows))


def _kernels(lowered: tvm.IRModule) -> list[str]:
    return sorted(
        var.name_hint
        for var, function in lowered.functions_items()
        if isinstance(function, tirx.PrimFunc)
    )


def test_many_rows_share_their_tiles() -> None:
    lowered = _lowered(tirx.Var("m", "int64"))
    assert _kernels(lowered) == ["amx_q4_64x128", "tiles_float32_128"]
    calls = lowered.script()
    assert calls.count("call_tir(cls.tiles_float32_128") == 1
    assert calls.count("call_tir(cls.amx_q4_64x128") == 2


def test_one_row_has_no_tiles() -> None:
    assert not any(name.startswith(("amx", "tiles")) for name in _kernels(_lowered(1)))


def test_steps_have_no_tiles() -> None:
    target = tvm.target.Target(dict(load_target("x86-64-amx").tvm))
    mod = _two_layers(tirx.Var("m", "int64"))
    mod = tvm.IRModule({"prefill": mod["main"], "batch_verify": mod["main"]})
    lowered = LowerLinear(linear_kernels(512, target), kernels_in_steps(512, target))(mod)
    assert "amx_" in str(lowered["prefill"])
    assert "amx_" not in str(lowered["batch_verify"])
    assert kernels_in_steps(512, tvm.target.Target(dict(load_target("x86-64-v4").tvm))) is None
