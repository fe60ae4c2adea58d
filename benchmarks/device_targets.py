"""Build a recipe for device targets and compare each library, on its stand-in, with PyTorch.

    python benchmarks/device_targets.py tinypy --schemes q4f16_1 q0f16 q4f32_1 q0f32

Per target and scheme: seconds of a build from nothing and of a second one, sizes of library and
weights, kernels; then what the library computes on its stand-in against the shipped weights in
float32: a prefill of 37 tokens, 8 decode steps, a batch of 3. Greedy text of 64 tokens is compared
with that of the library for this machine; where it differs, the logits of both tokens there tell
whether it was a near tie.
"""

from __future__ import annotations

import argparse
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
from edgec.runtime.forward import Capacity
from edgec.standins import Requirements, find_standin
from edgec.target import list_targets, load_target
from edgec.verification.golden_file import read_golden
from edgec.verification.original import find_original, references
from machine import machine

PREFILL, DECODES, BATCH, GREEDY = 37, 8, 3, 64
HOST = "host"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--targets", nargs="*")
    parser.add_argument("--schemes", nargs="*", default=["q4f16_1"])
    options = parser.parse_args()
    targets = options.targets or [
        name for name in list_targets() if load_target(name).standin != "native"
    ]
    print(machine())
    print(
        "target scheme | cold s | warm s | library KiB | weights KiB | kernels | prefill |"
        " decode | batch | top-1 | greedy"
    )
    with tempfile.TemporaryDirectory(prefix="edgec-targets-") as scratch:
        for scheme in options.schemes:
            base = build(options.recipe, HOST, scheme, Path(scratch), verify=True)[0]
            tokens = read_golden(base.golden).tokens.tolist()
            _, shipped = references(base, find_original(base))
            text, tops = greedy(base, tokens[:PREFILL])
            for name in targets:
                artifact, cold, warm = build(options.recipe, name, scheme, Path(scratch))
                print(name, scheme, "|", f"{cold:.1f} | {warm:.2f}", end=" | ")
                print(row(artifact, shipped, tokens, text, tops), flush=True)


def build(recipe: str, target: str, scheme: str, scratch: Path, *, verify: bool = False) -> Any:
    """The artifact, and seconds of a first and a second build."""
    environment = {**os.environ, "EDGEC_CACHE": str(scratch / f"cache-{target}-{scheme}")}
    out = scratch / f"out-{scheme}"
    command = [sys.executable, "-m", "edgec", "build", recipe, "--target", target]
    command += ["-s", f"quantization.scheme={scheme}", "--out", str(out)]
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        options = [] if verify else ["--no-verify"]
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        seconds.append(time.perf_counter() - started)
    name = load_target(target).name if target != HOST else None
    folders = [path for path in (out / recipe).iterdir() if name in (None, path.name)]
    return open_artifact(folders[0]), *seconds


def open_engine(artifact: Any, *, tokens: int = 256) -> Any:
    manifest = artifact.manifest
    runtime = manifest["runtime"]
    return find_standin(manifest["standin"]).open_engine(
        artifact.library,
        artifact.model,
        Requirements(
            runtime["architecture"],
            tuple(runtime["cpu_features"]),
            manifest.get("standin_cpu"),
            manifest.get("limits", {}),
        ),
        capacity=Capacity(BATCH, tokens, 64),
    )


def row(artifact: Any, shipped: Any, tokens: Any, text: Any, tops: Any) -> str:
    engine = open_engine(artifact)
    errors, agree = {}, []

    def compare(way: str, got: Any, expected: Any) -> None:
        errors[way] = max(errors.get(way, 0.0), float(np.abs(got - expected).max()))
        agree.append(int(np.argmax(got)) == int(np.argmax(expected)))

    table = shipped.logits(tokens[: PREFILL + DECODES])
    engine.add(0)
    compare("prefill", engine.prefill(0, tokens[:PREFILL]), table[PREFILL - 1])
    for place in range(PREFILL, PREFILL + DECODES):
        compare("decode", engine.decode(0, tokens[place]), table[place])
    engine.remove(0)
    parts = [tokens[index : index + 5 + 6 * index] for index in range(BATCH)]
    for index in range(BATCH):
        engine.add(index)
    expected = [shipped.logits([*part, tokens[50]]) for part in parts]
    ids = list(range(BATCH))
    for got, want in zip(engine.batch_prefill(ids, parts), expected, strict=True):
        compare("batch", got, want[-2])
    for got, want in zip(engine.batch_decode(ids, [tokens[50]] * BATCH), expected, strict=True):
        compare("batch", got, want[-1])
    for index in ids:
        engine.remove(index)
    facts = json.loads(json.dumps(artifact.manifest))
    files = facts["files"]
    library = sum(entry["bytes"] for name, entry in files.items() if name.startswith("lib/"))
    weights = facts["memory"]["weights_bytes"]
    mine, _ = greedy(artifact, tokens[:PREFILL], engine)
    kernels = len(facts.get("device_kernels") or facts["kernels"]["by_name"])
    return (
        f"{library / 1024:.0f} | {weights / 1024:.0f} | {kernels} | {errors['prefill']:.1e} |"
        f" {errors['decode']:.1e} | {errors['batch']:.1e} | {sum(agree)}/{len(agree)} |"
        f" {difference(mine, text, tops)}"
    )


def greedy(artifact: Any, prompt: Any, engine: Any = None) -> Any:
    """64 tokens, each the likeliest, and the logits they were chosen from."""
    engine = engine or open_engine(artifact)
    engine.add(0)
    logits = engine.prefill(0, prompt)
    text, tops = [], []
    for _ in range(GREEDY):
        tops.append(logits)
        text.append(int(np.argmax(logits)))
        logits = engine.decode(0, text[-1])
    engine.remove(0)
    return text, tops


def difference(mine: Any, text: Any, tops: Any) -> str:
    if mine == text:
        return f"equal, {len(text)} tokens"
    at = next(i for i, (a, b) in enumerate(zip(mine, text, strict=True)) if a != b)
    gap = float(tops[at][text[at]] - tops[at][mine[at]])
    scale = np.abs(tops[at]).max()
    return f"equal to token {at}, then a tie to {gap:.1e} of logits up to {scale:.0f}"


if __name__ == "__main__":
    main()
