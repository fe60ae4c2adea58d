"""Build a model at its full size for devices of every kind, and print what that takes.

    python benchmarks/full_size.py                           # phi4mini, with random weights
    python benchmarks/full_size.py --recipe llama32-1b --target webgpu

For each target: seconds by stage, the peak memory of all processes of the build, the artifact's size
against what the plan said before, and a second build. The targets share one cache, which begins empty,
so that the first one pays for what all need. Nothing is verified: the weights are random.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from build_cost import MB, Memory
from machine import machine

TARGETS = ("android-adreno", "x86-64-amx", "ios-metal", "webgpu", "jetson-orin")
AGAIN = 3
HEADER = (
    "target",
    "first build, s",
    "by stage, s",
    "peak memory of all processes, MB",
    "of it private, MB",
    "artifact, MB",
    "the plan's, MB",
    "difference, %",
    "second build, s",
)


@dataclass(frozen=True)
class Built:
    """What one build took.

    Attributes:
        seconds: of wall-clock time, with the start of the program.
        memory: of all its processes.
        stages: seconds of each that ran, of which two run at a time.
        artifact: its path.
    """

    seconds: float
    memory: Memory
    stages: dict[str, float]
    artifact: str


def edgec(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """A command with a cache in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgec", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "EDGEC_CACHE": str(folder / "cache")},
    )


def output_of(process: subprocess.Popen[str]) -> str:
    """What a command prints; ends this program if the command fails."""
    text, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    return text


def build(words: list[str], folder: Path) -> Built:
    """Build once."""
    started = time.monotonic()
    process = edgec(["build", *words, "--no-verify", "--json"], folder)
    memory = Memory(process.pid)
    *events, result = map(json.loads, output_of(process).splitlines())
    stages = {
        event["stage"]: event["seconds"] for event in events if event["event"] == "stage-finished"
    }
    return Built(time.monotonic() - started, memory, stages, result["artifact"])


def measure(recipe: str, target: str, folder: Path) -> list[str]:
    """The cells of a target's row."""
    words = [recipe, "--weights", "synthetic", "--target", target]
    (planned,) = json.loads(output_of(edgec(["plan", *words, "--json"], folder)))["builds"]
    # Before it is compiled the library's few megabytes aren't known.
    wanted = planned["artifact_bytes"] or planned["memory"]["weights_bytes"]
    first = build(words, folder)
    again = min(build(words, folder).seconds for _ in range(AGAIN))
    artifact = Path(folder, first.artifact)
    size = sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file())
    cells = [
        f"{first.seconds:.1f}",
        ", ".join(f"{name} {seconds:.1f}" for name, seconds in first.stages.items()),
        f"{first.memory.resident / MB:.0f}",
        f"{first.memory.private / MB:.0f}",
        f"{size / MB:.1f}",
        f"{wanted / MB:.1f}",
        f"{100 * (size / wanted - 1):.2f}",
        f"{again:.2f}",
    ]
    return [f"`{target}`", *cells]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="phi4mini")
    parser.add_argument("--target", action="append", help="only this one; may be repeated")
    arguments = parser.parse_args()
    print(machine(), end="\n\n")
    print(f"| {' | '.join(HEADER)} |")
    print(f"|{' --- |' * len(HEADER)}", flush=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("EDGEC_BENCH_DIR")) as folder:
        for target in arguments.target or TARGETS:
            row = measure(arguments.recipe, target, Path(folder))
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
