"""A built library and its stand-in: how every check opens and runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import UsageError
from edgec.models.kv_cache import PAGE_SIZE, pages
from edgec.runtime.forward import Capacity
from edgec.standins import find_standin
from edgec.verification.kernel_references import References
from edgec.verification.kernels import check_kernels
from edgec.verification.run import WHOLE, Extent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.models.window import SlidingWindow
    from edgec.runtime.engine import Engine
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

# Several sequences at once, and room for chunks that end unevenly.
_SEQUENCES_AT_ONCE = 4
# How long an emulated device may take for the text, and again for the ways to call it.
_SECONDS = 30
_FEWEST, _PATH_TOKENS = 16, 48  # tokens
_CHECKED_TOKENS = 64


@dataclass(frozen=True)
class BuiltLibrary:
    """A library, its weights, and what it takes to run them.

    Attributes:
        path: of the library.
        weights: their folder.
        standin: name of the stand-in to run it on.
        requirements: of the library.
        context_length: tokens that the library was compiled for.
        prefill_chunk: tokens of the longest prefill.
        max_batch_size: sequences.
        window: that slides over the context, if one does.
        parameters: numbers in the model's weights.
        kernels: names of all of its kernels.
        references: ``kernels.json``; may be absent.
    """

    path: Path
    weights: Path
    standin: str
    requirements: Requirements
    context_length: int
    prefill_chunk: int
    max_batch_size: int
    window: SlidingWindow | None
    parameters: int
    kernels: Sequence[str]
    references: Path

    @property
    def emulated(self) -> bool:
        """Whether the stand-in only emulates a device: it is slow, and shows calls of kernels.

        Raises:
            UsageError: there is no such stand-in.
        """
        return find_standin(self.standin).WEIGHTS_PER_SECOND is not None

    @property
    def extent(self) -> Extent:
        """How much of a text to run it on: all of it unless the device is emulated.

        Raises:
            UsageError: there is no such stand-in.
        """
        rate = find_standin(self.standin).WEIGHTS_PER_SECOND
        if rate is None:
            return WHOLE
        tokens = int(_SECONDS * rate / self.parameters)
        return Extent(
            tokens=max(_FEWEST, tokens), path_tokens=max(_FEWEST, min(_PATH_TOKENS, tokens // 12))
        )

    def open(
        self,
        longest: int,
        *,
        sequences: int = _SEQUENCES_AT_ONCE,
        checked: bool = False,
        observer: Observer | None = None,
    ) -> Engine:
        """Load it on its stand-in.

        Args:
            longest: tokens of the longest sequence that will be run.
            sequences: as many at once, if the library allows it.
            checked: see :meth:`edgec.standins.StandIn.open_engine`.
            observer: the same.

        Raises:
            UsageError: there is no such stand-in, or the library is none for it.
            ToolchainError: the stand-in can't run the library on this machine.
            VerificationError: the library is damaged.
        """
        if self.window is not None and self.emulated:
            # TVM's cache can't tell devices other than CPUs and CUDA, and so not a stand-in, of
            # more than one sequence's window in a call.
            sequences = 1
        return find_standin(self.standin).open_engine(
            self.path,
            self.weights,
            self.requirements,
            capacity=Capacity(
                sequences=min(sequences, self.max_batch_size),
                tokens=self._tokens(longest, sequences),
                prefill_chunk=min(self.prefill_chunk, self.context_length),
            ),
            checked=checked,
            observer=observer,
        )

    def _tokens(self, longest: int, sequences: int) -> int:
        """Room in the cache for some sequences of at most ``longest`` tokens."""
        if self.window is None:
            return min(self.context_length, sequences * longest)
        # Each may fill pages of its own in part.
        return sequences * pages(min(longest, self.window.size)) * PAGE_SIZE

    def check_kernels(self, tokens: Sequence[int]) -> dict[str, Any]:
        """Run each kernel beside its reference, with every memory access checked.

        Args:
            tokens: to run the model on, at least 2.

        Returns:
            The section ``kernels`` of a report; see :func:`~edgec.verification.kernels.check_kernels`.

        Raises:
            UsageError: the stand-in shows no kernels.
            VerificationError: a kernel is wrong, or the references can't be read.
            ToolchainError: the stand-in can't run the library on this machine.
        """
        if not self.emulated:
            raise UsageError(
                "kernels can be looked at on an emulated device only",
                where=self.standin,
                remedy="choose the stand-in emulator or qemu, or leave this check out",
            )
        references = References(self.references)

        def open_checked(observer: Observer) -> Engine:
            return self.open(_CHECKED_TOKENS, checked=True, observer=observer)

        return check_kernels(
            open_checked, references, self.kernels, tokens, longest_image=self.extent.tokens or 0
        )
