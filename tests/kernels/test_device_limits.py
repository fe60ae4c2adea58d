"""Kernels over a limit of the device are named before they get there."""

from typing import Any

import pytest

from edgec.errors import BuildError
from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import relax  # noqa: E402
from tvm.script import tirx as T  # noqa: E402, N812

from edgec.layouts.specs import TensorSpec  # noqa: E402
from edgec.models.kv_cache import KVCacheSpec  # noqa: E402
from edgec.models.rope import Rope  # noqa: E402
from edgec.passes.attach_kv_cache import AttachKVCache  # noqa: E402
from edgec.passes.pipeline import apply, machine_passes, plan_passes  # noqa: E402
from edgec.scheduling.device_limits import (  # noqa: E402
    KernelNeeds,
    check_allocations,
    check_kernels,
    device_code,
)
from edgec.target import load_target  # noqa: E402


@T.prim_func(s_tir=True)
def add_in_shared_memory(  # noqa: ANN201 - TVMScript
    a: T.Buffer((64, 128), "float16"), b: T.Buffer((64, 128), "float16")
):
    T.func_attr({"global_symbol": "add", "tirx.noalias": True})
    for i in T.thread_binding(64, "blockIdx.x"):
        for j in T.thread_binding(128, "threadIdx.x"):
            with T.sblock("root"):
                strip = T.sblock_alloc_buffer((128,), "float32", scope="shared")
                strip[j] = T.Cast("float32", a[i, j])
                b[i, j] = T.Cast("float16", strip[j] + T.float32(1))


def needs_of(function: Any, target_name: Any) -> Any:
    profile = load_target(target_name)
    target = tvm.target.Target(dict(profile.tvm))
    kind = str(target.kind.name)
    with device_code(kind) as needs, target:
        tvm.tirx.build(tvm.IRModule({"add": function}), target=target)
    return needs, profile


@pytest.mark.parametrize("target", ["android-adreno", "ios-metal", "cuda"])
def test_what_a_kernel_needs_is_read_from_the_code(target: Any) -> None:
    needs, _ = needs_of(add_in_shared_memory, target)
    assert needs == [KernelNeeds("add_kernel", 128, 512, 2, 16)]


@pytest.mark.parametrize(
    ("limit", "most", "said"),
    [
        ("max_threads", 127, "add_kernel: threads 128 of at most 127"),
        ("max_shared_memory_bytes", 511, "add_kernel: shared_memory_bytes 512 of at most 511"),
        ("max_buffers", 1, "add_kernel: buffers 2 of at most 1"),
        ("max_argument_bytes", 15, "add_kernel: argument_bytes 16 of at most 15"),
    ],
)
def test_a_kernel_over_a_limit_is_named(limit: Any, most: Any, said: Any) -> None:
    needs, _ = needs_of(add_in_shared_memory, "android-adreno")
    check_kernels(needs, {limit: most + 1}, "some-phone")
    with pytest.raises(BuildError) as caught:
        check_kernels(needs, {limit: most}, "some-phone")
    assert said in str(caught.value)
    assert "some-phone: limits" in str(caught.value)


def test_a_number_of_threads_that_varies_is_refused() -> None:
    with pytest.raises(BuildError, match="isn't constant"):
        check_kernels([KernelNeeds("k", None, 0, 1, 8)], {"max_threads": 256}, "some-phone")


def test_the_hook_is_taken_away_again() -> None:
    before = tvm.get_global_func("target.build.opencl")
    needs_of(add_in_shared_memory, "android-adreno")
    assert tvm.get_global_func("target.build.opencl").same_as(before)


def test_the_largest_buffer_is_named() -> None:
    weights = [TensorSpec("a", (10,), "float16", "a"), TensorSpec("b", (30,), "float16", "b")]
    check_allocations(weights, {"prefill": 60}, 60, {"max_allocation_bytes": 60}, "some-phone")
    cases = [
        (weights, {"prefill": 61}, 60, "the workspace of prefill takes 61 bytes"),
        (weights, {"prefill": 1}, 61, "one layer of the KV cache takes 61 bytes"),
        ([TensorSpec("c", (31,), "float16", "c")], {}, 0, "the weight c takes 62 bytes"),
    ]
    for specs, workspace, cache, said in cases:
        with pytest.raises(BuildError, match=said):
            check_allocations(specs, workspace, cache, {"max_allocation_bytes": 60}, "some-phone")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["android-adreno", "ios-metal", "cuda"])
@pytest.mark.parametrize(
    ("head_dim", "group"),
    [
        pytest.param(64, 1, marks=pytest.mark.nightly),
        (96, 3),
        pytest.param(128, 4, marks=pytest.mark.nightly),
        (128, 8),
    ],
)
def test_attention_fits_every_device(target: Any, head_dim: Any, group: Any) -> None:
    profile = load_target(target)
    tvm_target = tvm.target.Target(dict(profile.tvm))
    rope = Rope(theta=10000.0, scaling={}, rotary_dim=head_dim)
    spec = KVCacheSpec(1, 2 * group, 2, head_dim, rope, "float16")
    passes = [
        AttachKVCache(spec, tvm_target),
        tvm.tirx.transform.BindTarget(tvm_target),
        relax.transform.LegalizeOps(),
        tvm.tirx.transform.ForceNarrowIndexToInt32(),
        *plan_passes(),
        *machine_passes(),
    ]
    mod = apply(tvm.IRModule(), passes, tvm_target)
    config = {"tirx.disable_cse_tir": True}
    context = tvm.transform.PassContext(opt_level=3, config=config)
    with device_code(str(tvm_target.kind.name)) as needs, context:
        relax.build(mod, tvm_target, relax_pipeline=None)
    assert any(item.name == "batch_decode_paged_kv_kernel" for item in needs)
    check_kernels(needs, profile.limits, target)
