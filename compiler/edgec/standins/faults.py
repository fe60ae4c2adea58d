"""A kernel that did something wrong while it was executed for verification."""

from __future__ import annotations

from edgec.errors import VerificationError


class KernelFault(VerificationError):  # noqa: N818 - the fault is the kernel's
    """An access outside a kernel's memory, a race, a barrier not reached by all, an endless loop.

    Args:
        kernel: its name in the device module.
        what: what it did, in words, without a full stop.
        place: work-groups and work-items, as ``"work-group (0, 0, 0), work-item (3, 0, 0)"``.
    """

    def __init__(self, kernel: str, what: str, place: str = "") -> None:
        self.kernel = kernel
        self.place = place
        super().__init__(f"{what} [{place}]" if place else what, where=f"kernel {kernel}")
