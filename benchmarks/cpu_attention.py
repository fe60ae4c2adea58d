"""Attention of one layer on this CPU, in the shape of Llama 3.2 1B: edgec's kernels and PyTorch's.

    python benchmarks/cpu_attention.py --threads 2

Decoding is compared with the time that reading its keys and values takes at ``--bandwidth``, prefill
with that of its arithmetic at ``--peak`` per thread. Both read keys and values of 16 layers in turns,
so that they come from memory. All run in turns; printed are the least and the median time of each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.runtime.threads import set_threads
from machine import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kernels.cache_rows import held, queries, room

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADS, _KV_HEADS, _HEAD = 32, 8, 64
_PAGE = 16
_LAYERS = 16
_BYTES = {"float32": 4, "float16": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16"])
    parser.add_argument("--kv", choices=["auto", "float16", "int8"], default="auto")
    parser.add_argument("--contexts", nargs="*", type=int, default=[32, 512, 2048, 8192])
    parser.add_argument("--prompts", nargs="*", type=int, default=[128, 512, 2048])
    parser.add_argument("--bandwidth", type=float, default=31, help="GB/s of reading memory")
    parser.add_argument("--peak", type=float, default=116, help="float32 GFLOP/s of one core")
    parser.add_argument(
        "--cpu-time", action="store_true", help="of all threads, where others use the CPUs too"
    )
    parser.add_argument("--vector-bits", type=int, default=512)
    parser.add_argument("--mcpu", default="x86-64-v4")
    options = parser.parse_args()
    # Before they are loaded. PyTorch's threads would wait actively while ours work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # As sessions have it: bound to processors, two threads may share one.
    set_threads(options.threads)
    import torch  # noqa: PLC0415

    torch.set_num_threads(options.threads)
    print(machine())
    print(
        "dtype case | edgec us least median | limit us, part of it | torch us, ratio to the median"
    )
    for dtype in options.dtypes:
        kernels, shape = build(dtype, options)
        for context in options.contexts:
            row = shape.format.row * _BYTES[dtype]
            limit = 2e-3 * context * _KV_HEADS * row / options.bandwidth
            calls = decode(kernels["batch_decode_paged_kv_cpu"], shape, context)
            report(f"{dtype} decode@{context}", calls, limit, options, _LAYERS)
        for tokens in options.prompts:
            work = 2e-3 * _HEADS * _HEAD * tokens * (tokens + 1)
            limit = work / (options.peak * options.threads)
            calls = prefill(kernels["batch_prefill_ragged_kv"], shape, tokens)
            report(f"{dtype} prefill {tokens}", calls, limit, options, 1)


def report(
    case: str, calls: tuple[Callable[[], Any], ...], limit: float, options: Any, layers: int
) -> None:
    """Run in turns and print microseconds of one layer."""
    times: list[list[float]] = [[] for _ in calls]
    clock = time.process_time if options.cpu_time else time.perf_counter
    for _ in range(options.rounds):
        for call, own in zip(calls, times, strict=True):
            start = clock()
            call()
            own.append(1e6 * (clock() - start) / layers)
    least = min(times[0])
    ours, theirs = (statistics.median(own) for own in times)
    print(
        f"{case} | {least:.0f} {ours:.0f} | {limit:.0f} {limit / least:.2f} |"
        f" {theirs:.0f} {theirs / ours:.2f}",
        flush=True,
    )


def build(dtype: str, options: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """The kernels, by their names, and their parameters."""
    from edgec.ir.load import load_tvm  # noqa: PLC0415

    load_tvm()
    import tvm  # noqa: PLC0415

    from edgec.passes.assume_no_alias import AssumeNoAlias  # noqa: PLC0415
    from edgec.scheduling.kernels.cpu_attention import (  # noqa: PLC0415
        paged_decode,
        ragged_prefill,
    )
    from edgec.scheduling.kernels.cpu_attention_blocks import Attention  # noqa: PLC0415

    stored = dtype if options.kv == "auto" else options.kv
    shape = Attention(_HEADS, _KV_HEADS, _HEAD, dtype, options.vector_bits, stored=stored)
    target = tvm.target.Target({"kind": "llvm", "mcpu": options.mcpu})
    kernels = {}
    for make in (paged_decode, ragged_prefill):
        function = make(shape)
        name = function.attrs["global_symbol"]
        # As libraries have it: it changes how the kernels use registers.
        module = AssumeNoAlias()(tvm.IRModule({name: function}))
        built = tvm.tirx.build(module, target)
        kernels[name] = tvm.runtime.Executable(built)[name]
    return kernels, shape


def decode(kernel: Any, shape: Any, context: int) -> tuple[Callable[[], Any], ...]:
    """One token in each of the layers: ours and PyTorch's."""
    import torch  # noqa: PLC0415

    count = -(-context // _PAGE)
    size = (count, 2, _KV_HEADS, _PAGE, _HEAD)
    layers = [_tensor(held(shape, _normal(size))) for _ in range(_LAYERS)]
    q = _tensor(queries(shape, _normal((1, _HEADS, _HEAD))))
    out, lse = map(_tensor, room(shape, 1))
    pages = [_indices([0, count]), _indices(range(count)), _indices([(context - 1) % _PAGE + 1])]
    rest = [_indices([0]), _indices([context - 1]), out, lse, 0, 1.0, 1e4, _HEAD**-0.5]

    def ours() -> None:
        for layer in layers:
            kernel(q, layer, *pages, *rest)

    kind = getattr(torch, shape.dtype)
    query = torch.randn(1, _HEADS, 1, _HEAD, dtype=kind)
    cache = [torch.randn(2, 1, _KV_HEADS, context, _HEAD, dtype=kind) for _ in range(_LAYERS)]

    def theirs() -> None:
        for k, v in cache:
            torch.nn.functional.scaled_dot_product_attention(query, k, v, enable_gqa=True)

    return ours, theirs


def prefill(kernel: Any, shape: Any, tokens: int) -> tuple[Callable[[], Any], ...]:
    """A prompt in one layer: ours and PyTorch's."""
    import torch  # noqa: PLC0415

    k, v = (_tensor(held(shape, _normal((tokens, _KV_HEADS, _HEAD)))) for _ in range(2))
    q = _tensor(queries(shape, _normal((tokens, _HEADS, _HEAD))))
    starts, out = _indices([0, tokens]), map(_tensor, room(shape, tokens))
    rest = [starts, _indices(range(tokens)), _indices([0]), *out, 1, 0, 1.0, 1e4, _HEAD**-0.5]
    kind = getattr(torch, shape.dtype)
    query = torch.randn(1, _HEADS, tokens, _HEAD, dtype=kind)
    keys, values = torch.randn(2, 1, _KV_HEADS, tokens, _HEAD, dtype=kind)
    attend = torch.nn.functional.scaled_dot_product_attention
    return (
        lambda: kernel(q, starts, k, v, *rest),
        lambda: attend(query, keys, values, is_causal=True, enable_gqa=True),
    )


def _normal(size: tuple[int, ...]) -> Any:
    import numpy as np  # noqa: PLC0415

    return np.random.default_rng(0).standard_normal(size, np.float32)


def _tensor(array: Any) -> Any:
    import tvm  # noqa: PLC0415

    return tvm.runtime.tensor(array)


def _indices(numbers: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    return _tensor(np.array(list(numbers), np.int32))


if __name__ == "__main__":
    main()
