"""The passes of generic models, each on a small function: what it changes computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from edgec.errors import UsageError
from edgec.ir.inputs import table_rows
from edgec.layouts.mlc import pack
from edgec.models.parameters import Parameter, Source
from edgec.passes import pipeline, tensor_pipeline
from edgec.passes.half_precision import HalfPrecision
from edgec.passes.name_function import NameFunction
from edgec.passes.pack_parameters import PackParameters, check_readers
from edgec.passes.widen_booleans import WidenBooleans
from edgec.quantization.methods.rtn import quantize
from edgec.quantization.schemes import TensorScheme

pytestmark = pytest.mark.slow

N, K, ROWS = 16, 32, 10
SCHEME = TensorScheme(bits=4, group_size=32, scale_dtype="float32")


def parameter(name: str, shape: tuple[int, ...], role: Any) -> Parameter:
    return Parameter(name, shape, role, (Source(name, shape),))


PARAMETERS = (
    parameter("table.weight", (ROWS, K), "embedding"),
    parameter("fc.weight", (N, K), "linear"),
    parameter("fc.bias", (N,), "plain"),
)


def module(*, reuse: bool = False) -> tvm.IRModule:
    """Ids ``(n,)`` to rows of a table to a linear layer to ``(n, 16)``; masked where ids are 0."""
    builder = relax.BlockBuilder()
    n = tvm.tirx.Var("n", "int64")
    ids = relax.Var("ids", relax.TensorType((n,), "int32"))
    weights = [relax.Var(p.name, relax.TensorType(p.shape, "float32")) for p in PARAMETERS]
    table, w, bias = weights
    op = relax.op
    with builder.function("main", [ids, *weights], attrs={"num_input": 1}):
        with builder.dataflow():
            x = builder.emit(op.take(table, ids, axis=0))
            y = builder.emit(op.matmul(x, builder.emit(op.permute_dims(w))))
            y = builder.emit(op.add(y, bias))
            if reuse:
                y = builder.emit(op.add(y, builder.emit(op.sum(w))))
            seen = builder.emit(op.greater(ids, relax.const(0, "int32")))
            seen = builder.emit(op.reshape(seen, (n, 1)))
            y = builder.emit(op.where(seen, y, relax.const(0.0, "float32")))
            result = builder.emit_output(relax.Tuple([y]))
        builder.emit_func_output(result)
    return builder.finalize()


def values() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    return {p.name: generator.normal(0, 0.1, p.shape).astype(np.float32) for p in PARAMETERS}


def expected(ids: np.ndarray, given: dict[str, np.ndarray]) -> np.ndarray:
    y = given["table.weight"][ids] @ given["fc.weight"].T + given["fc.bias"]
    return np.where((ids > 0)[:, None], y, 0.0)


def run(mod: tvm.IRModule, name: str, ids: np.ndarray, weights: list[np.ndarray]) -> Any:
    """Lower a packed module for this machine, without vectors wider than any has, and call it."""
    target = tvm.target.Target({"kind": "llvm"})
    types = [tensor.dtype.name for tensor in weights]
    fields = mod[name].params[-1].ty.fields
    stored = {
        index: (tensor.shape, types[index])
        for index, (tensor, field) in enumerate(zip(weights, fields, strict=True))
        if types[index] != str(field.dtype)
    }
    lowering = tensor_pipeline.TensorLowering({"n": 8}, stored, 128)
    for _, passes in tensor_pipeline.phases(lowering, target):
        mod = pipeline.apply(mod, passes, target)
    mod = pipeline.apply(mod, [*pipeline.plan_passes(), *pipeline.machine_passes()], target)
    built = relax.build(mod, target, relax_pipeline=None)
    machine = relax.VirtualMachine(built, tvm.cpu())
    tensors = [tvm.runtime.tensor(item) for item in weights]
    return machine[name](tvm.runtime.tensor(ids), tensors)


IDS = np.array([3, 0, 9, 1], np.int32)


def test_weights_become_one_tuple() -> None:
    mod = PackParameters(PARAMETERS, dict.fromkeys((p.name for p in PARAMETERS), None))(module())
    mod = NameFunction("prefill", unwrap=True)(mod)
    assert [var.name for var in mod["prefill"].params] == ["ids", "packed_params"]
    result = run(mod, "prefill", IDS, list(values().values()))
    np.testing.assert_allclose(result.numpy(), expected(IDS, values()), atol=1e-6)


def test_matrices_and_tables_are_quantized() -> None:
    schemes = {"table.weight": SCHEME, "fc.weight": SCHEME, "fc.bias": None}
    mod = NameFunction("main", unwrap=False)(PackParameters(PARAMETERS, schemes)(module()))
    given, weights, shipped = values(), [], {}
    for p in PARAMETERS:
        if schemes[p.name] is None:
            weights.append(given[p.name])
            shipped[p.name] = given[p.name]
            continue
        tensor = quantize(given[p.name], SCHEME)
        weights += pack(tensor).values()
        shipped[p.name] = tensor.dequantize()
    (result,) = run(mod, "main", IDS, weights)
    np.testing.assert_allclose(result.numpy(), expected(IDS, shipped), atol=1e-5)
    assert np.abs(result.numpy() - expected(IDS, given)).max() > 1e-3


def test_a_matrix_that_others_read_too_is_not_quantized() -> None:
    schemes = {"table.weight": None, "fc.weight": SCHEME, "fc.bias": None}
    with pytest.raises(UsageError, match=r"fc\.weight is read by more than linear layers"):
        check_readers(module(reuse=True), PARAMETERS, schemes)
    check_readers(module(), PARAMETERS, schemes)
    plain = dict.fromkeys(schemes)
    check_readers(module(reuse=True), PARAMETERS, plain)


def test_half_precision_narrows_weights_and_keeps_results() -> None:
    before = module()
    mod = HalfPrecision(1)(before)
    assert [str(var.ty.dtype) for var in mod["main"].params] == ["int32", *["float16"] * 3]
    assert str(mod["main"].ret_ty.fields[0].dtype) == "float32"
    text = mod.script()
    # The table is read in half precision: it isn't widened whole.
    assert f'R.Tensor(({ROWS}, {K}), dtype="float32")' not in text
    assert f'R.Tensor(({N}, {K}), dtype="float32")' not in text
    plain = dict.fromkeys((p.name for p in PARAMETERS), None)
    mod = NameFunction("main", unwrap=False)(PackParameters(PARAMETERS, plain)(mod))
    (result,) = run(mod, "main", IDS, [item.astype(np.float16) for item in values().values()])
    np.testing.assert_allclose(result.numpy(), expected(IDS, values()), atol=2e-3)


def test_truth_values_are_numbers_between_kernels() -> None:
    plain = dict.fromkeys((p.name for p in PARAMETERS), None)
    mod = NameFunction("main", unwrap=False)(PackParameters(PARAMETERS, plain)(module()))
    mod = WidenBooleans()(mod)
    fused = pipeline.apply(mod, pipeline.fusion(), tvm.target.Target({"kind": "llvm"}))
    for function in (item for _, item in fused.functions_items()):
        if isinstance(function, tvm.tirx.PrimFunc):
            dtypes = {str(getattr(parameter, "dtype", "")) for parameter in function.params}
            assert "bool" not in dtypes
    (result,) = run(mod, "main", IDS, list(values().values()))
    np.testing.assert_allclose(result.numpy(), expected(IDS, values()), atol=1e-6)


def test_tables_bound_the_ids_that_index_them() -> None:
    assert table_rows(module()["main"]) == {"ids": ROWS}
