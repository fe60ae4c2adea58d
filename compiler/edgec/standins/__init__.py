"""Where a target's library runs when it is verified: one module per kind of stand-in.

A target profile names its stand-in; the file of that name is found, there is no list to edit. A
stand-in gives one function, ``open_engine``, which loads a library with its weights and answers
with an engine. ``native`` is this machine; an emulator or another process that speaks to a device
would be files beside it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgec.errors import UsageError
from edgec.suggest import instead_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.runtime.engine import Capacity
    from edgec.verification.interfaces import Engine


class StandIn(Protocol):
    """What a stand-in's module offers."""

    def open_engine(
        self,
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
            weights: a weight folder in the layout that the library was compiled for.
            cpu_features: flags of ``/proc/cpuinfo`` that the library needs.
            architecture: of the processors it is for, as in an LLVM triple: ``"x86_64"``.
            capacity: sizes of the KV cache; by default what the library was compiled for.

        Raises:
            ToolchainError: the stand-in can't run the library on this machine.
            CheckpointError: the weight folder is damaged.
            UsageError: the library was compiled for less than ``capacity``.
        """


def list_standins() -> list[str]:
    """The names of the stand-ins, which are the files of this folder."""
    return sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")
    )


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
