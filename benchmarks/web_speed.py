"""Tokens per second of libraries for browsers, against ONNX Runtime Web, which runs Transformers.js.

    pip install onnx
    python benchmarks/web_speed.py ARTIFACT... [--config config.json]

(or install onnx into a folder of its own and name that in PYTHONPATH).

Each artifact is one built for WebGPU with q4f16_1 or q4f32_1. Its weights are written as an ONNX
model with the same codes and scales, and both run in Node.js on the same implementation of WebGPU
(Dawn) and the same adapter: one process each, in turns. Every pass ends when its logits are on the
host and the most probable token is known. ONNX Runtime is measured with activations in their own
type and, as int8, with MatMulNBits' accuracy level 4. Logits of both are compared first: without
agreement there is no comparison.

First passes are told apart: ONNX Runtime makes its pipelines then, edgec's library when it opens,
and some drivers compile them when they are first used.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgec.artifacts.artifact import Artifact, open_artifact
from edgec.layouts.tensor_cache import TensorCache
from edgec.standins import dawn
from edgec.standins.dawn.adapter import driver_environment
from edgec.standins.npm import node, npm_folder
from machine import machine

try:
    from web_speed_parts.onnx_model import write_onnx
except ModuleNotFoundError as error:
    if error.name != "onnx":
        raise
    sys.exit("this benchmark writes an ONNX model: pip install onnx")

_PARTS = Path(__file__).with_name("web_speed_parts")
_RECIPES = Path(__file__).parents[1] / "recipes"
_DAWN = Path(dawn.__file__).parent
_RUNTIME = "onnxruntime-web/dist"
_ORT_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
# Of the largest logit: float16 sums in another order, and activations rounded to int8.
_TOLERANCE = 0.08
_AGREEMENT = 0.9


@dataclass
class Side:
    """An engine in its own process of Node.js."""

    name: str
    process: subprocess.Popen[str]
    opened: dict[str, Any]
    first: list[float]
    rounds: list[list[float]]
    logits: Any = None
    tops: Any = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--config", type=Path, help="of the model; by default the recipe's")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accuracy", nargs="*", type=int, default=[0, 4], help="of MatMulNBits")
    parser.add_argument(
        "--shared-cache", action="store_true", help="let ONNX Runtime update its KV cache in place"
    )
    options = parser.parse_args()
    print(machine())
    for folder in options.artifacts:
        with tempfile.TemporaryDirectory(prefix="edgec-web-speed-") as scratch:
            compare(open_artifact(folder), options, Path(scratch))


def compare(artifact: Artifact, options: argparse.Namespace, scratch: Path) -> None:
    config_file = options.config or _RECIPES / artifact.manifest["name"] / "config.json"
    config = json.loads(config_file.read_bytes())
    generator = np.random.default_rng(0)
    tokens = generator.integers(3, config["vocab_size"], options.prompt + options.decode).tolist()
    request = {"operation": "generate", "tokens": tokens, "prompt": options.prompt}
    sides: list[Side] = []
    try:
        sides.append(open_edgec(artifact, options, scratch))
        measure(sides, artifact, config, options, scratch, request)
    finally:
        for side in sides:
            close(side)


def measure(
    sides: list[Side],
    artifact: Artifact,
    config: dict[str, Any],
    options: argparse.Namespace,
    scratch: Path,
    request: dict[str, Any],
) -> None:
    models = {}
    for level in options.accuracy:
        models[level] = scratch / f"accuracy{level}.onnx"
        write_onnx(artifact.model, config, models[level], accuracy_level=level)
        sides.append(open_ort(artifact, models[level], level, config, options, scratch))
    print(f"\n{artifact.manifest['model_lib']}: {sides[0].opened['adapter']}")
    print_sizes(artifact, next(iter(models.values()), None))
    for side in sides:
        # A driver on a CPU compiles for minutes here.
        print(f"first pass of {side.name} ...", file=sys.stderr, flush=True)
        side.first = keep(side, ask(side, request))
    check(sides)
    for _ in range(options.rounds):
        for side in sides:
            side.rounds.append(keep(side, ask(side, request)))
    print_times(sides, options)


def open_edgec(artifact: Artifact, options: argparse.Namespace, scratch: Path) -> Side:
    modules = npm_folder("the stand-in dawn", _DAWN / "npm")
    side = start("edgec", ["edgec_side.mjs", _DAWN / "library.mjs", modules], scratch)
    side.opened = ask(
        side,
        {
            "operation": "open",
            "library": str(artifact.library.absolute()),
            "weights": str(artifact.model.absolute()),
            "context": round_up(options.prompt + options.decode, 16),
            "prompt": options.prompt,
        },
    )
    return side


def open_ort(
    artifact: Artifact,
    model: Path,
    level: int,
    config: dict[str, Any],
    options: argparse.Namespace,
    scratch: Path,
) -> Side:
    modules = npm_folder("ONNX Runtime Web", _PARTS / "npm")
    side = start("ORT Web" + " int8" * (level == 4), ["ort_side.mjs", modules], scratch)
    heads = config["num_attention_heads"]
    total = round_up(options.prompt + options.decode, 16)
    side.opened = ask(
        side,
        {
            "operation": "open",
            "model": str(model),
            "layers": config["num_hidden_layers"],
            "heads": config.get("num_key_value_heads", heads),
            "width": config.get("head_dim") or config["hidden_size"] // heads,
            "dtype": TensorCache(artifact.model).dtype("model.norm.weight"),
            "shared": total if options.shared_cache else 0,
        },
    )
    return side


def start(name: str, command: list[Any], scratch: Path) -> Side:
    """A process whose driver has compiled nothing before."""
    kernels = scratch / f"driver-{name.replace(' ', '-')}"
    kernels.mkdir()
    environment = {**os.environ, **driver_environment(), "MESA_SHADER_CACHE_DIR": str(kernels)}
    program, *arguments = map(str, command)
    process = subprocess.Popen(
        [node(), str(_PARTS / program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(scratch / f"{kernels.name}.log").open("w"),
        text=True,
        env=environment,
    )
    return Side(name, process, {}, [], [])


def ask(side: Side, request: dict[str, Any]) -> dict[str, Any]:
    assert side.process.stdin is not None
    assert side.process.stdout is not None
    side.process.stdin.write(json.dumps(request) + "\n")
    side.process.stdin.flush()
    for line in side.process.stdout:
        if line.startswith("@"):
            answer: dict[str, Any] = json.loads(line[1:])
            if "error" in answer:
                sys.exit(f"{side.name}: {answer['error'][:2000]}")
            return answer
    sys.exit(f"{side.name}: Node.js ended with {side.process.wait()}")


def keep(side: Side, answer: dict[str, Any]) -> list[float]:
    side.logits, side.tops = np.array(answer["logits"]), np.array(answer["tops"])
    times: list[float] = answer["milliseconds"]
    return times


def check(sides: list[Side]) -> None:
    """Both compute the same model, or nothing is printed."""
    base = sides[0]
    scale = np.abs(base.logits).max()
    for side in sides[1:]:
        error = np.abs(side.logits - base.logits).max() / scale
        agreement = float(np.mean(side.tops == base.tops))
        print(f"{side.name}: logits differ by {error:.1e} of {scale:.1f}, top-1 {agreement:.0%}")
        if not error <= _TOLERANCE or agreement < _AGREEMENT:
            sys.exit(f"{side.name} computes something else than edgec: this is no comparison")


def print_sizes(artifact: Artifact, model: Path | None) -> None:
    shards = sum(path.stat().st_size for path in artifact.model.glob("params_shard_*.bin"))
    print(f"edgec: library {size([artifact.library])}; weights {shards / 2**20:.1f} MiB")
    if model is not None:
        folder = npm_folder("ONNX Runtime Web", _PARTS / "npm") / _RUNTIME
        print(
            f"ORT Web: runtime {size([folder / name for name in _ORT_FILES])};"
            f" model {model.stat().st_size / 2**20:.1f} MiB"
        )


def size(files: list[Path]) -> str:
    raw = sum(path.stat().st_size for path in files)
    packed = sum(len(gzip.compress(path.read_bytes())) for path in files)
    return f"{raw / 2**20:.1f} MiB, gzip {packed / 2**20:.1f} MiB"


def print_times(sides: list[Side], options: argparse.Namespace) -> None:
    print("engine | open s | first prefill s | first decode ms | prefill tok/s | decode tok/s")
    speeds = [speed(side, options) for side in sides]
    for side, (prefill, decode) in zip(sides, speeds, strict=True):
        print(
            f"{side.name} | {side.opened['seconds']:.2f} | {side.first[0] / 1000:.2f} |"
            f" {side.first[1]:.1f} | {prefill:.1f} | {decode:.1f}"
        )
    if len(sides) > 1:
        ratios = [speeds[0][way] / max(other[way] for other in speeds[1:]) for way in (0, 1)]
        print(f"edgec / best of ORT Web: prefill {ratios[0]:.2f}, decode {ratios[1]:.2f}")
    pipelines = sides[0].opened.get("pipeline_seconds")
    print(f"edgec's pipelines, all made when it opens: {pipelines:.2f} s", flush=True)


def speed(side: Side, options: argparse.Namespace) -> tuple[float, float]:
    """Tokens per second of the median round."""
    prefill = median(times[0] for times in side.rounds)
    decode = median(sum(times[1:]) for times in side.rounds)
    return 1000 * options.prompt / prefill, 1000 * options.decode / decode


def close(side: Side) -> None:
    """It may be in the middle of a pass, if another one failed."""
    side.process.kill()
    side.process.wait()


def round_up(value: int, step: int) -> int:
    return -(-value // step) * step


if __name__ == "__main__":
    main()
