"""Attention with soft caps and layers' windows against NumPy in float64.

Three implementations, each on its own: the kernels for CPUs, those for GPUs, whose memory and barriers
are checked, and the loops that stand for both where verification checks a kernel alone.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.scheduling.kernels import cpu_attention, gpu_attention  # noqa: E402
from edgec.scheduling.kernels.attention_arguments import NOTHING, Heads  # noqa: E402
from edgec.scheduling.kernels.attention_meaning import attention_meanings  # noqa: E402
from edgec.scheduling.kernels.cpu_attention_blocks import Attention  # noqa: E402
from kernels import cache_rows  # noqa: E402
from kernels.attention_problem import Problem, offsets  # noqa: E402
from kernels.gpu_functions import PHONE, call  # noqa: E402
from standin_tools import needs  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

KERNELS = ("batch_decode_paged_kv", "batch_prefill_paged_kv", "batch_prefill_ragged_kv")
# A window within a block, and one of several blocks.
CAPPED = Heads(4, 2, 64, "float32", soft_cap=1.5, window=7)
HALF = Heads(6, 2, 24, "float16", soft_cap=4.0, window=70)
ONLY_CAP = Heads(6, 1, 80, "float32", soft_cap=0.5)
ONLY_WINDOW = Heads(4, 1, 48, "float32", window=1000)


@functools.cache
def _built(make: Callable[[Any], Any], shape: Heads) -> Any:
    """A function of this CPU; kernels are compiled once for all tests."""
    from edgec.target import cpu_features  # noqa: PLC0415

    cpu = "x86-64-v4" if "avx512f" in cpu_features() else "x86-64-v3"
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    primitive = make(shape)
    name = primitive.attrs["global_symbol"]
    built = tvm.tirx.build(tvm.IRModule({name: primitive}), target)
    return tvm.runtime.Executable(built)[name]


def _call(function: Any, problem: Problem, tensors: list[Any], scalars: list[Any]) -> Any:
    out, lse = (tvm.runtime.tensor(item) for item in problem.results())
    given = [tvm.runtime.tensor(np.ascontiguousarray(item)) for item in tensors]
    function(*given, out, lse, *scalars)
    return out.numpy(), lse.numpy()


_CPU = {
    "batch_decode_paged_kv": cpu_attention.paged_decode,
    "batch_prefill_paged_kv": cpu_attention.paged_prefill,
    "batch_prefill_ragged_kv": cpu_attention.ragged_prefill,
}
_MEANING = {
    name: lambda shape, name=name: attention_meanings(shape)[name]  # type: ignore[misc]
    for name in KERNELS
}


def run_cpu(problem: Problem, kernel: str, tensors: list[Any], scalars: list[Any]) -> Any:
    a = problem.shape
    shape = Attention(
        a.heads, a.kv_heads, a.head_dim, a.dtype, 512, soft_cap=a.soft_cap, window=a.window
    )
    given = [cache_rows.queries(shape, tensors[0]), *tensors[1:]]
    out, lse = (tvm.runtime.tensor(item) for item in cache_rows.room(shape, len(problem.q)))
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(item)) for item in given]
    _built(_CPU[kernel], shape)(*tensors, out, lse, *scalars)
    return cache_rows.results(shape, out.numpy(), lse.numpy())


def run_meaning(problem: Problem, kernel: str, tensors: list[Any], scalars: list[Any]) -> Any:
    return _call(_built(_MEANING[kernel], problem.shape), problem, tensors, scalars)


def run_gpu(problem: Problem, kernel: str, tensors: list[Any], scalars: list[Any]) -> Any:
    make: Callable[[Heads], Any] = {
        "batch_decode_paged_kv": gpu_attention.paged_decode,
        "batch_prefill_paged_kv": gpu_attention.paged_prefill,
        "batch_prefill_ragged_kv": gpu_attention.ragged_prefill,
    }[kernel]
    given = [np.ascontiguousarray(item) for item in tensors]
    found = call(make(problem.shape), PHONE, *given, *problem.results(), *scalars, checked=True)
    return found[len(given)], found[len(given) + 1]


@pytest.fixture(
    params=[
        run_cpu,
        run_meaning,
        pytest.param(run_gpu, marks=[needs("clang"), needs("clang++")]),
    ]
)
def run(request: pytest.FixtureRequest) -> Any:
    return request.param


def _check(
    run: Any, problem: Problem, kernel: str, *, causal: bool, tolerance: float | None = None
) -> tuple[Any, Any]:
    decodes, ragged = kernel.startswith("batch_decode"), kernel.endswith("ragged_kv")
    rows, firsts = problem.positions, problem.firsts
    queries = [problem.q] if decodes else [problem.q, offsets(problem.new)]
    if ragged:
        keys, values = np.concatenate(problem.k), np.concatenate(problem.v)
        rest = [keys, values, offsets(problem.lengths), rows, firsts]
    else:
        rest = [*problem.pages(), firsts, rows]
    scalars = problem.scalars(causal=None if decodes else causal)
    out, lse = run(problem, kernel, [*queries, *rest], scalars)
    problem.check(out, lse, causal=causal, tolerance=tolerance)
    return out, lse


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [CAPPED, HALF], ids=str)
def test_in_layers_of_both_kinds(run: Any, kernel: str, shape: Heads) -> None:
    lengths, firsts = [70, 3, 150, 17], [0, 5, 32, 100]
    new = {"batch_decode_paged_kv": [1] * 4, "batch_prefill_ragged_kv": lengths}
    counts = new.get(kernel, [40, 1, 7, 17])
    for windows in (True, False):
        problem = Problem(shape, lengths, counts, firsts=firsts, windows=windows)
        _check(run, problem, kernel, causal=kernel.endswith("ragged_kv"))


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("shape", [ONLY_CAP, ONLY_WINDOW], ids=str)
def test_a_cap_or_a_window_alone(run: Any, shape: Heads, windows: bool) -> None:
    """The scale is positive where no layer has a window."""
    if windows and shape.window is None:
        return
    problem = Problem(shape, [70, 17], [1, 1], windows=windows)
    _check(run, problem, "batch_decode_paged_kv", causal=False)


def test_tokens_of_forked_sequences_come_in_any_order(run: Any) -> None:
    """To the pages that they share they are one sequence, and some see none of its keys."""
    problem = Problem(CAPPED, [150], [11], firsts=[16], windows=True)
    order = np.array([160, 109, 110, 300, 106, 107, 115, 40, 112, 113, 174])
    problem.positions = order.astype(np.int32)
    out, lse = _check(run, problem, "batch_prefill_paged_kv", causal=False)
    unseeing = order - 7 >= 16 + 150 - 1
    assert unseeing.sum() == 2
    assert (out[unseeing] == 0).all()
    assert (lse[unseeing] == NOTHING).all()


def test_large_scores_stay_at_the_cap(run: Any) -> None:
    problem = Problem(CAPPED, [48], [48])
    problem.q *= 1000
    # Scores near 1000 are rounded to 2^-14, and not all of them are far beyond the cap.
    out, lse = _check(run, problem, "batch_prefill_ragged_kv", causal=True, tolerance=1e-3)
    assert np.isfinite(out).all()
    # Up to 48 keys whose scores are at most the cap.
    assert (lse <= (1.5 + np.log(48)) / np.log(2) + 1e-4).all()
