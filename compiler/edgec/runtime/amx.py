"""Permission for the matrix tiles of AMX, which Linux gives to programs that ask for it.

The first tile instruction of a process without it ends the process. A permission holds for all of its
threads (https://docs.kernel.org/arch/x86/xstate.html).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILEDATA = 18


def permit_amx(
    library: Path,
    cpu_features: Iterable[str],
    *,
    system: str = sys.platform,
    call: Callable[[int, int, int], int] | None = None,
) -> None:
    """Ask for the tiles if a library needs them.

    Args:
        library: for messages.
        cpu_features: flags of ``/proc/cpuinfo`` that it needs, all of which the processor has.
        system: of this machine, by Python's name. Other systems than Linux need no permission.
        call: makes a system call and gives 0 or a number of an error; by default the real one.

    Raises:
        ToolchainError: the kernel refuses.
    """
    if system != "linux" or not any(feature.startswith("amx") for feature in cpu_features):
        return
    failed = (call or _system_call)(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA)
    if not failed:
        return
    remedy = "run it on Linux 5.16 or newer, or build it for --target x86-64-v4"
    if failed == errno.ENOSPC:
        remedy = "give every thread an alternate signal stack of at least 12 KiB, or none"
    raise ToolchainError(
        f"the kernel doesn't let this process use the processor's AMX tiles ({os.strerror(failed)})",
        where=str(library),
        remedy=remedy,
    )


def _system_call(number: int, first: int, second: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_long(value) for value in (number, first, second))
    return ctypes.get_errno() if libc.syscall(*arguments) else 0
