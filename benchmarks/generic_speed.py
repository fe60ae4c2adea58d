"""A residual network like ResNet-18 on this CPU, one thread: edgec's code and ONNX Runtime.

    python benchmarks/generic_speed.py --size 224

Weights are random. Both run the same picture in turns; the least time of each counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TVM_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import onnxruntime
import torch
import tvm

from edgec.importers.imported import Signature, TensorType
from edgec.importers.torch_model import TorchModel
from numerics.imported_models import lowered

if TYPE_CHECKING:
    from collections.abc import Callable


class Block(torch.nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm = torch.nn.BatchNorm2d(outside)
        self.second = torch.nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.last = torch.nn.BatchNorm2d(outside)
        self.past: torch.nn.Module = torch.nn.Identity()
        if stride > 1:
            self.past = torch.nn.Sequential(
                torch.nn.Conv2d(inside, outside, 1, stride, bias=False),
                torch.nn.BatchNorm2d(outside),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.second(torch.relu(self.norm(self.first(x))))
        return torch.relu(self.last(inner) + self.past(x))


class Residual(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.norm = torch.nn.BatchNorm2d(width)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        blocks = [
            Block(sizes[i] if j == 0 else sizes[i + 1], sizes[i + 1], 2 if i and j == 0 else 1)
            for i in range(4)
            for j in range(2)
        ]
        self.blocks = torch.nn.Sequential(*blocks)
        self.head = torch.nn.Linear(8 * width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1)
        return self.head(self.blocks(stem).mean((2, 3)))


def best(*calls: Callable[[], Any], rounds: int) -> list[float]:
    """The least time of each call in milliseconds, called in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(1e3 * (time.perf_counter() - start))
    return [min(own) for own in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--vector-bits", type=int, default=512)
    parser.add_argument("--mcpu", default="x86-64-v4")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = options.size
    module = Residual(64).eval()
    signature = Signature((TensorType("x", ("batch", 3, size, size), "float32"),), {"batch": 4})
    model = TorchModel(module, signature, where="resnet")
    start = time.perf_counter()
    imported = model.imported()
    between = time.perf_counter()
    machine = lowered(imported, vector_bits=options.vector_bits, mcpu=options.mcpu)
    print(f"import {between - start:.1f} s, compile {time.perf_counter() - between:.1f} s")
    picture = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    tensors = [tvm.runtime.tensor(picture)]
    tensors += [tvm.runtime.tensor(array) for _, array in imported.weights()]
    program: Any = torch.onnx.export(module, (torch.from_numpy(picture),), dynamo=True)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    wanted = model.run([picture])[0]
    error = np.abs(machine["main"](*tensors)[0].numpy() - wanted).max() / np.abs(wanted).max()
    ours, theirs = best(
        lambda: machine["main"](*tensors),
        lambda: session.run(None, {name: picture}),
        rounds=options.rounds,
    )
    print(f"max relative error {error:.1e}")
    print(f"edgec {ours:.1f} ms, ONNX Runtime {theirs:.1f} ms, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
