"""Build a recipe from nothing and print seconds by stage, MB/s and peak memory.

    python benchmarks/build_cost.py benchmarks/shapes/llama-3.2-1b.yaml

Memory is the sum over all processes of the build, sampled every 20 ms. "Resident" counts mapped
files (the weights, while the library is verified); "private" is what the processes hold for
themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from machine import machine

MB = 1e6


class Memory:
    """Peak memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.resident = self.private = 0
        self._process = psutil.Process(pid)
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while self._process.is_running():
            resident = private = 0
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:
                return
            for process in family:
                try:
                    info = process.memory_info()
                except psutil.Error:
                    continue
                resident += info.rss
                private += info.rss - info.shared
            self.resident = max(self.resident, resident)
            self.private = max(self.private, private)
            time.sleep(0.02)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("options", nargs="*", help="further options of edgec build, after --")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=os.environ.get("EDGEC_BENCH_DIR")) as folder:
        command = [sys.executable, "-m", "edgec", "build", arguments.recipe, "--json"]
        command += ["--out", f"{folder}/out", *arguments.options]
        started = time.monotonic()
        build = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "EDGEC_CACHE": f"{folder}/cache"},
        )
        memory = Memory(build.pid)
        assert build.stdout is not None
        lines = [json.loads(line) for line in build.stdout]
        if build.wait():
            sys.exit(build.returncode)
        seconds = time.monotonic() - started
        units = {
            line["stage"]: line["total"]
            for line in lines
            if line["event"] == "stage-progress" and line["unit"] == "bytes"
        }
        result = lines[-1]
        print(f"{result['recipe']} for {result['target']}: {seconds:.1f} s")
        for name, stage in result["stages"].items():
            speed = f"{units[name] / MB / stage['seconds']:8.0f} MB/s" if name in units else ""
            print(f"  {name:12s} {stage['seconds']:7.2f} s {speed}")
        size = sum(path.stat().st_size for path in Path(folder, "out").rglob("*") if path.is_file())
        print(f"artifact {size / MB:.1f} MB")
        print(
            f"peak memory {memory.resident / MB:.0f} MB resident, {memory.private / MB:.0f} private"
        )


if __name__ == "__main__":
    main()
