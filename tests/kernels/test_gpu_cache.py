"""Our kernels for the KV cache on GPUs: taking in tokens, joining two parts of a context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm.s_tir import dlight  # noqa: E402

from edgec.models.kv_cache import PAGE_SIZE, KVCacheSpec  # noqa: E402
from edgec.models.rope import Rope  # noqa: E402
from edgec.passes.attach_kv_cache import AttachKVCache  # noqa: E402
from edgec.scheduling.kernels.gpu_append import append_to_pages  # noqa: E402
from edgec.scheduling.kernels.gpu_merge import merge_states  # noqa: E402
from kernels.gpu_functions import IPHONE, JETSON, PHONE, call, gpu_target, limits  # noqa: E402
from standin_tools import needs  # noqa: E402

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

TARGETS = {
    "opencl": {**PHONE, "thread_warp_size": 1},
    "metal": {**IPHONE, "max_threads_per_block": 256, "thread_warp_size": 32},
    "cuda": {**JETSON, "thread_warp_size": 32},
}
HEADS, SIZE = 3, 96


def fallback(function: Any, attributes: Any) -> Any:
    target = gpu_target(attributes)
    with target:
        mod = tvm.tirx.transform.ForceNarrowIndexToInt32()(tvm.IRModule({"main": function}))
        return dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())(mod)["main"]


@pytest.mark.parametrize("tokens", [1, 37])
@pytest.mark.parametrize("kind", TARGETS)
def test_tokens_go_to_their_places_and_nothing_else_changes(kind: Any, tokens: Any) -> None:
    random = np.random.default_rng(tokens)
    kernel = fallback(append_to_pages(HEADS, SIZE, "float16"), TARGETS[kind])
    pages = random.standard_normal((5, 2, HEADS, PAGE_SIZE, SIZE)).astype(np.float16)
    keys, values = (random.standard_normal((tokens, HEADS, SIZE)).astype(np.float16) for _ in "kv")
    places = random.permutation(5 * PAGE_SIZE)[:tokens].astype(np.int32)
    places[0] = -1
    expected = pages.copy()
    for token, place in enumerate(places):
        if place >= 0:
            expected[place // PAGE_SIZE, 0, :, place % PAGE_SIZE] = keys[token]
            expected[place // PAGE_SIZE, 1, :, place % PAGE_SIZE] = values[token]
    got = call(kernel, TARGETS[kind], pages, keys, values, places, checked=True)[0]
    np.testing.assert_array_equal(got, expected)


def test_the_kernel_it_replaces_reads_beyond_the_places() -> None:
    spec = KVCacheSpec(
        1, HEADS, HEADS, SIZE, Rope(theta=10000.0, scaling={}, rotary_dim=SIZE), "float16"
    )
    attach = AttachKVCache(spec, gpu_target(TARGETS["opencl"]))
    mod = tvm.transform.Sequential([attach])(tvm.IRModule())
    kernel = fallback(mod["tir_kv_cache_transpose_append"], TARGETS["opencl"])
    pages = np.zeros((5, 2, HEADS, PAGE_SIZE, SIZE), np.float16)
    new = np.zeros((37, HEADS, SIZE), np.float16)
    with pytest.raises(RuntimeError, match="past its end"):
        call(
            kernel, TARGETS["opencl"], pages, new, new, np.arange(37, dtype=np.int32), checked=True
        )


@pytest.mark.parametrize("size", [64, 96, 128])
@pytest.mark.parametrize("heads", [1, 3, 33])
@pytest.mark.parametrize("kind", TARGETS)
def test_two_parts_are_joined(kind: Any, heads: Any, size: Any) -> None:
    random = np.random.default_rng(heads)
    kernel = merge_states(size, "float16", limits(TARGETS[kind]))
    tokens = 5
    values, other = (random.standard_normal((tokens, heads, size)).astype(np.float16) for _ in "ab")
    sums, other_sums = (random.uniform(-4, 4, (tokens, heads)).astype(np.float32) for _ in "ab")
    got, got_sums, *_ = call(kernel, TARGETS[kind], values, sums, other, other_sums, checked=True)
    a, b = np.exp2(sums.astype(np.float64)), np.exp2(other_sums.astype(np.float64))
    joined = (values * a[..., None] + other * b[..., None]) / (a + b)[..., None]
    # One rounding to half precision of numbers up to 4.
    np.testing.assert_allclose(got, joined, rtol=0, atol=2.0**-10 * 2)
    np.testing.assert_allclose(got_sums, np.log2(a + b), rtol=0, atol=1e-5)
