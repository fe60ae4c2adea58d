"""Where a target's library runs when it is verified: one module per kind of stand-in.

A target profile names its stand-in; the module of that name is found, there is no list to edit. A
stand-in gives one function, ``open_engine``, which loads a library with its weights and answers
with an engine. ``native`` is this machine; the others take a library apart: bytecode runs here
(``device``), host functions in a program for their processor (``guest``), kernels where the
stand-in says.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgec.errors import UsageError
from edgec.suggest import instead_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins.device.hosting import Observer


NATIVE = "native"
"""The stand-in that is this machine itself."""


@dataclass(frozen=True)
class Requirements:
    """The machine that a library is for.

    Attributes:
        architecture: of its processors, as in an LLVM triple: ``"x86_64"``.
        cpu_features: flags of ``/proc/cpuinfo`` that the library needs.
        cpu: what an emulated processor shall be; None for one that fits the features.
        limits: of the device, by the names of target profiles; those left out aren't checked.
    """

    architecture: str
    cpu_features: tuple[str, ...] = ()
    cpu: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)


class StandIn(Protocol):
    """What a stand-in's module offers."""

    WEIGHTS_PER_SECOND: float | None
    """How many weights of a model are used in a second, in tokens times weights, on two cores:
    roughly, to tell how much can be run. None where the library runs on a device itself: its speed
    makes that no question, and there is no observer and nothing checked."""

    def open_engine(
        self,
        library: Path,
        weights: Path,
        requirements: Requirements,
        *,
        capacity: Capacity | None = None,
        checked: bool = False,
        observer: Observer | None = None,
    ) -> Engine:
        """Load a library and its weights.

        Args:
            library: the model library.
            weights: a weight folder in the layout that the library was compiled for.
            requirements: of the library.
            capacity: sizes of the KV cache; by default what the library was compiled for.
            checked: whether to check every memory access that the stand-in can see, and to fill
                new device memory with NaNs. Slow.
            observer: is shown every call of a host function.

        Raises:
            ToolchainError: the stand-in can't run the library on this machine.
            CheckpointError: the weight folder is damaged.
            VerificationError: the library is damaged.
            UsageError: the library was compiled for less than ``capacity``, or is none for this
                stand-in, or the stand-in can't do what is asked for.
        """


def list_standins() -> list[str]:
    """The names of the stand-ins: the modules and packages of this folder that open engines."""
    folder = Path(__file__).parent
    files = {path.stem: path for path in folder.glob("*.py")}
    files |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
    return sorted(name for name, path in files.items() if _OFFERED in path.read_text())


_OFFERED = "\ndef open_engine("


def find_standin(name: str) -> StandIn:
    """The stand-in of this name.

    Raises:
        UsageError: there is none.
    """
    known = list_standins()
    if name not in known:
        raise UsageError(
            f"there is no stand-in {name!r}",
            where="standin",
            remedy=instead_of(name, known, noun="stand-ins"),
        )
    return cast("StandIn", importlib.import_module(f"edgec.standins.{name}"))
