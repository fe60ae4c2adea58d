"""Load a library on this machine, if its processor, its GPU and the runtime can run it."""

from __future__ import annotations

import platform
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgec.errors import EdgecError, ToolchainError
from edgec.libraries.open import open_library
from edgec.runtime.amx import permit_amx
from edgec.runtime.devices import open_device
from edgec.runtime.engine import Engine
from edgec.runtime.threads import set_threads
from edgec.runtime.tvm_runtime import Machine, is_cpu
from edgec.runtime.weights import MappedWeights
from edgec.target.processor import check_processor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgec.runtime.forward import Capacity


def load_engine(
    library: Path,
    weights: Path,
    cpu_features: Sequence[str],
    architecture: str,
    *,
    capacity: Capacity | None = None,
) -> Engine:
    """Load a library and its weights.

    Args:
        library: the model library.
        weights: a weight folder in the MLC layout.
        cpu_features: flags of ``/proc/cpuinfo`` that the library needs.
        architecture: of the processors it is for: ``"x86_64"``.
        capacity: sizes of the KV cache; by default what the library was compiled for.

    Raises:
        ToolchainError: this processor can't run the library, there is no device for its kernels,
            or the runtime can't load it.
        CheckpointError: the weight folder is damaged.
        VerificationError: the library is damaged.
        UsageError: the library was compiled for less than ``capacity``.
    """
    check_processor(library, architecture, cpu_features, machine=platform.machine())
    permit_amx(library, cpu_features)
    set_threads()
    device = open_device(_kernels_for(library), str(library))
    # A GPU gets a copy of each tensor, once.
    mapped = MappedWeights(weights, resident=is_cpu(device))
    with opening(library):
        engine = Engine(Machine(library, device), device, library, mapped, capacity)
        if not is_cpu(device):
            try_out(engine)
    return engine


@contextmanager
def opening(library: Path) -> Iterator[None]:
    """Turn what the runtime raises for a library into an error of ours.

    What the loader of the system and the runtime raise for a file that isn't a library of ours,
    or that the GPU can't run, depends on where they notice it.

    Args:
        library: for messages.

    Raises:
        ToolchainError: the runtime can't load the library, or there isn't enough memory.
    """
    try:
        yield
    except EdgecError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        remedy = "check the artifact with edgec verify, or build it again"
        if re.search(r"out.?of.?memory|alloc", str(error), re.IGNORECASE):
            remedy = "ask for fewer tokens with --context"
        elif re.search("cuda", str(error), re.IGNORECASE):
            remedy = (
                "check with edgec inspect whether it has code for this GPU, or that edgec verify"
                " finds it whole"
            )
        raise ToolchainError(
            f"the runtime can't load the library ({lines[-1]})", where=str(library), remedy=remedy
        ) from error


def try_out(engine: Engine) -> None:
    """Decode a token: a GPU loads the kernels only when they are launched."""
    if not engine.has_cache:
        return
    engine.add(0)
    engine.decode(0, 0)
    engine.remove(0)


def _kernels_for(library: Path) -> str | None:
    """The kind of device that a library's kernels are for; None if all is host code."""
    module = open_library(library).device
    return None if module is None else module.kind
