"""Speed and error of 4-bit round-to-nearest, against the gguf package's Q4_0 in the same run.

    pip install gguf
    python benchmarks/quantize_speed.py

Both quantize the same float32 matrix in groups of 32 with a float16 scale, 4.5 bits a weight. Rounds
alternate between the two; the median is printed.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import gguf
import numpy as np

from edgec.parallel import Workspace
from edgec.quantization.methods.rtn import quantize
from edgec.quantization.schemes import TensorScheme
from edgec.quantization.tensors import QuantizedTensor
from machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, COLUMNS, ROUNDS = 8192, 2048, 7
STEP = 128  # rows at a time, as the build does it


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """See the module's docstring."""
    weights = np.random.default_rng(0).normal(0, 0.02, (ROWS, COLUMNS)).astype(np.float32)
    scheme = TensorScheme(bits=4, group_size=32, scale_dtype="float16")
    workspace = Workspace()

    def ours() -> None:
        for start in range(0, ROWS, STEP):
            quantize(weights[start : start + STEP], scheme, workspace)

    def theirs() -> None:
        gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q4_0)

    ours()
    theirs()
    pairs = [(timed(ours), timed(theirs)) for _ in range(ROUNDS)]
    mine, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(second / first for first, second in pairs)
    size = weights.nbytes / 1e6
    print(machine())
    print(f"edgec rtn  {size / mine:7.0f} MB/s of float32, one thread")
    print(f"gguf Q4_0  {size / peer:7.0f} MB/s")
    print(f"ratio      {ratio:7.1f}")

    stored = quantize(weights, scheme)
    tensor = QuantizedTensor(stored.codes.copy(), stored.scales.copy(), 4)
    packed = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q4_0)
    other = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_0)
    scale = np.square(weights).mean()
    for name, values in (("edgec rtn", tensor.dequantize()), ("gguf Q4_0", other)):
        print(
            f"{name}  relative mean squared error {np.square(values - weights).mean() / scale:.5f}"
        )


if __name__ == "__main__":
    main()
