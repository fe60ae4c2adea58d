"""Libraries for browsers in the shapes of public models: their shaders, and sampling from all tokens.

    python benchmarks/web_shapes.py

Each is a model of two layers with random weights and the full vocabulary, built by ``edgec build``.
Every kernel is compiled to a pipeline by wgpu, as a browser does when a page opens; then the
samplers and the functions on logits run on rows of the whole vocabulary, beside NumPy in float64.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgec.artifacts.artifact import open_artifact
from edgec.libraries.open import open_library
from edgec.runtime.forward import Capacity
from edgec.standins import Requirements, find_standin
from edgec.standins.wgpu.figures import shader_figures
from edgec.verification.sampling import check_sampling
from machine import machine

LAYERS = 2
_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
}
SHAPES = {
    "llama-3.2-1b": {
        **_LLAMA,
        "head_dim": 64,
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "vocab_size": 128256,
    },
    "phi-4-mini": {
        **_LLAMA,
        "head_dim": 128,
        "hidden_size": 3072,
        "num_attention_heads": 24,
        "vocab_size": 200064,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--schemes", nargs="*", default=["q4f16_1", "q4f32_1"])
    options = parser.parse_args()
    print(machine())
    print(
        "shape scheme | build s | wasm KiB (gzip) | kernels | WGSL KiB | largest KiB |"
        " pipelines s | samplers s | worst function on logits"
    )
    with tempfile.TemporaryDirectory(prefix="edgec-web-") as scratch:
        for name in options.shapes:
            for scheme in options.schemes:
                artifact, seconds = build(Path(scratch), name, scheme)
                print(name, scheme, "|", f"{seconds:.1f} | {row(artifact)}", flush=True)


def build(folder: Path, name: str, scheme: str) -> tuple[Any, float]:
    """An artifact for browsers, and the seconds that took."""
    (folder / f"{name}.json").write_text(json.dumps(SHAPES[name]))
    recipe = {
        "schema": "edgec.recipe/v1",
        "name": name,
        "model": {"source": f"synthetic:{name}.json"},
        "context": {"length": 512, "prefill_chunk": 128},
        "quantization": {"scheme": scheme},
        "targets": ["webgpu"],
    }
    (folder / f"{name}.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "edgec", "build", str(folder / f"{name}.yaml")]
    command += ["--no-verify", "--out", str(folder / scheme)]
    environment = {**os.environ, "EDGEC_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds = time.perf_counter() - started
    return open_artifact(folder / scheme / name / "webgpu"), seconds


def row(artifact: Any) -> str:
    """What is printed of a library."""
    runtime, limits = artifact.manifest["runtime"], artifact.manifest["limits"]
    library = open_library(artifact.library)
    assert library.device is not None
    figures = shader_figures(library.device, limits)
    largest = max(len(text) for text in library.device.code.values())
    wasm = artifact.library.read_bytes()
    engine = find_standin("wgpu").open_engine(
        artifact.library,
        artifact.model,
        Requirements(runtime["architecture"], limits=limits),
        capacity=Capacity(1, 64, 64),
    )
    vocab = int(artifact.chat_config["vocab_size"])
    logits = np.random.default_rng(0).standard_normal((2, vocab)).astype(np.float32) * 4
    started = time.perf_counter()
    errors = check_sampling(engine, logits)
    seconds = time.perf_counter() - started
    worst = max(errors, key=lambda name: errors[name])
    return (
        f"{len(wasm) / 1024:.0f} ({len(gzip.compress(wasm, 9)) / 1024:.0f}) |"
        f" {len(library.device.functions)} | {figures.wgsl_bytes / 1024:.0f} |"
        f" {largest / 1024:.1f} | {figures.pipeline_seconds:.1f} | {seconds:.1f} |"
        f" {errors[worst]:.1e} ({worst})"
    )


if __name__ == "__main__":
    main()
