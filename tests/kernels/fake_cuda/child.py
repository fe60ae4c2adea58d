"""Runs in a process of its own, whose only GPU is the fake one: edgec's command line, or a model.

    python -m kernels.fake_cuda.child SETTINGS edgec WORD...
    python -m kernels.fake_cuda.child SETTINGS logits STANDIN OUT

SETTINGS is JSON: ``folder`` of driver and runtime, ``library``, ``report`` (a file to write),
``broken`` (see :class:`FakeGpu`). STANDIN is the one to run on, or empty for edgec's runtime.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.cli.main import run
from edgec.runtime import bandwidth
from edgec.runtime.load import load_engine
from edgec.standins import Requirements, find_standin
from kernels.fake_cuda.device import FakeGpu
from kernels.fake_cuda.steps import CAPACITY, logits

if TYPE_CHECKING:
    from collections.abc import Sequence

_X86_64 = "x86_64"


def main(settings: dict[str, str], what: str, words: Sequence[str]) -> int:
    """Do it; the exit code."""
    library = Path(settings["library"])
    gpu = FakeGpu(Path(settings["folder"]), library, broken=settings.get("broken", ""))
    # Blocks of a real GPU's size would take most of a test's time.
    (bandwidth.copy_rate.__kwdefaults__ or {})["nbytes"] = 1 << 20
    code = run(words) if what == "edgec" else _logits(library, *words)
    Path(settings["report"]).write_text(json.dumps(gpu.report()))
    return code


def _logits(library: Path, standin: str, out: str) -> int:
    weights = library.parent.parent / "model"
    if standin:
        engine = find_standin(standin).open_engine(
            library, weights, Requirements(_X86_64), capacity=CAPACITY
        )
    else:
        engine = load_engine(library, weights, (), _X86_64, capacity=CAPACITY)
    found: dict[str, Any] = logits(engine)
    np.savez(out, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]))
