"""A generic model's library and its stand-in: how every check opens and runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.standins import find_standin
from edgec.verification.kernel_references import References
from edgec.verification.kernels import KernelCheck

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer
    from edgec.verification.generic import Run


@dataclass(frozen=True)
class GenericLibrary:
    """A library, its weights, and what it takes to run them.

    Attributes:
        path: of the library.
        weights: their folder.
        function: that is called.
        standin: name of the stand-in to run it on.
        requirements: of the library.
        kernels: names of all of its kernels.
        references: ``kernels.json``; may be absent.
    """

    path: Path
    weights: Path
    function: str
    standin: str
    requirements: Requirements
    kernels: Sequence[str]
    references: Path

    @property
    def emulated(self) -> bool:
        """Whether the stand-in only emulates a device: it is slow, and shows calls of kernels."""
        return find_standin(self.standin).WEIGHTS_PER_SECOND is not None

    def open(self, *, checked: bool = False, observer: Observer | None = None) -> Run:
        """Load it on its stand-in; see :meth:`edgec.standins.StandIn.open_engine`."""
        engine = find_standin(self.standin).open_engine(
            self.path, self.weights, self.requirements, checked=checked, observer=observer
        )

        def run(arguments: Sequence[npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
            return engine.run(self.function, *arguments)

        return run

    def check_kernels(self, samples: Sequence[Sequence[npt.NDArray[Any]]]) -> dict[str, Any]:
        """Run each kernel beside its reference, with every memory access checked.

        Args:
            samples: arguments of the calls to do.

        Returns:
            The section ``kernels`` of a report.

        Raises:
            VerificationError: a kernel is wrong; it is named.
        """
        check = KernelCheck(References(self.references))
        run = self.open(checked=True, observer=check)
        for arguments in samples:
            run(arguments)
        return check.to_json(self.kernels)
