"""Build and verify models whose attention has other shapes than a recipe at hand has.

    python benchmarks/head_shapes.py ios-metal --head-dims 64 96 128 --ratios 1 3 4 8

Each is a model of one layer with random weights, built by ``edgec build`` as users do, which runs
every kernel alone beside its reference and then the whole library beside PyTorch on the target's
stand-in. Printed per shape: the largest error of a kernel, as a part of its result's scale, and of
the logits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from machine import machine

_KV_HEADS = 2
_VOCABULARY = 512
_GROUP = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--head-dims", nargs="*", type=int, default=[64, 96, 128])
    parser.add_argument("--ratios", nargs="*", type=int, default=[1, 3, 4, 8])
    parser.add_argument("--scheme", default="q4f16_1")
    options = parser.parse_args()
    print(machine())
    print("target head_dim ratio | build and verify s | kernels | worst kernel | logits")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="edgec-heads-") as scratch:
        for target, head_dim, ratio in product(options.targets, options.head_dims, options.ratios):
            name = f"h{head_dim}r{ratio}"
            write(Path(scratch), name, head_dim, ratio, options.scheme)
            text, good = build(Path(scratch), name, target)
            failed += not good
            print(target, head_dim, ratio, "|", text, flush=True)
    sys.exit(failed > 0)


def write(folder: Path, name: str, head_dim: int, ratio: int, scheme: str) -> None:
    """A recipe beside the shape it names."""
    heads = _KV_HEADS * ratio
    hidden = max(64, head_dim * heads // 4)
    shape = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": -(-hidden // _GROUP) * _GROUP,
        "intermediate_size": 128,
        "max_position_embeddings": 512,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": 1,
        "num_key_value_heads": _KV_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "vocab_size": _VOCABULARY,
    }
    (folder / f"{name}.json").write_text(json.dumps(shape))
    recipe = {
        "schema": "edgec.recipe/v1",
        "name": name,
        "model": {"source": f"synthetic:{name}.json"},
        "context": {"length": 256, "prefill_chunk": 64},
        "quantization": {"scheme": scheme},
        "targets": ["host"],
    }
    (folder / f"{name}.yaml").write_text(json.dumps(recipe))


def build(folder: Path, name: str, target: str) -> tuple[str, bool]:
    """What is printed of a shape, and whether it was built and found right."""
    command = [sys.executable, "-m", "edgec", "build", str(folder / f"{name}.yaml")]
    command += ["--target", target, "--out", str(folder / "out")]
    environment = {**os.environ, "EDGEC_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        return f"{seconds:.1f} | failed: {done.stderr.strip().splitlines()[-1]}", False
    report = json.loads((folder / "out" / name / target / "report.json").read_text())
    return f"{seconds:.1f} | {summary(report)}", True


def summary(report: dict[str, Any]) -> str:
    """Number of kernels, the worst of them, and the logits of the whole library."""
    kernels = report["kernels"]["checked"]
    worst = max(kernels, key=lambda name: float(kernels[name]["max_error"]))
    paths = report["paths"]
    error = max(paths[way] for way in ("prefill", "chunked_prefill", "decode", "batch"))
    return (
        f"{len(kernels)} | {kernels[worst]['max_error']:.1e} ({worst}) |"
        f" {error:.1e} of {paths['logit_scale']:.1f}"
    )


if __name__ == "__main__":
    main()
