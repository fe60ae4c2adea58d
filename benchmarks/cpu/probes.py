"""What the machine gives by itself, measured in turns with the engines: no guest of a host has it alone."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import steps
from figures import GB
from peers import SIDES
from race import EngineError, Process

from spreads import spread_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Probe(NamedTuple):
    """Something to measure.

    Attributes:
        script: its side.
        source: what the side calls, in C.
        request: for the side, beside the compiled source.
        text: what is measured, and its unit.
    """

    script: str
    source: str
    request: Mapping[str, Any]
    text: str


_MEMORY = {
    "huge pages": Probe("memory_side.py", "read.c", {"huge": True}, "memory, huge pages: {} GB/s"),
    "4 KiB pages": Probe(
        "memory_side.py", "read.c", {"huge": False}, "memory, 4 KiB pages: {} GB/s"
    ),
}
_ALL = {
    **_MEMORY,
    "cores": Probe("cores_side.py", "add.c", {}, "cores, all at once: {} G additions/s"),
}


def start_probes(cache: Path) -> dict[str, Process]:
    """Their processes by name, of those that can be started; the others are named with the reason."""
    started: dict[str, Process] = {}
    for name, probe in _ALL.items():
        process = None
        try:
            library = _compiled(probe.source, cache)
            command = [sys.executable, str(SIDES / probe.script)]
            process = Process(command, {}, cache / "probes.log")
            process.ask("open", spawned=process.spawned, model=str(library), **probe.request)
        except (steps.StepError, EngineError) as error:
            print(f"  {name} aren't measured: {error}", file=sys.stderr, flush=True)
            if process is not None:
                process.close()
        else:
            started[name] = process
    return started


def of_memory(rates: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Bytes per second, by the kind of pages."""
    return {name: found for name, found in rates.items() if name in _MEMORY}


def probe_lines(rates: Mapping[str, Sequence[float]]) -> list[str]:
    """A line for each that was measured."""
    return [
        _ALL[name].text.format(spread_text([rate / GB for rate in found]))
        for name, found in rates.items()
        if found
    ]


def _compiled(source: str, cache: Path) -> Path:
    def build(place: Path) -> None:
        words = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-shared", "-fPIC"]
        steps.run([*words, "-o", str(place), str(SIDES / source)], cache / f"{source}.log")

    library = (cache / source).with_suffix(".so")
    return steps.make(library, f"compiling {source}", build)
