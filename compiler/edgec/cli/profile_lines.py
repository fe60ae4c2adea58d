"""The table of a profile, for ``edgec bench --profile``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgec.cli.output import stdout_table

if TYPE_CHECKING:
    from edgec.runtime.profile import KernelProfile, PassProfile

_REST = "between calls"


def show_profile(found: PassProfile, memory_rate: float) -> None:
    """Print a profile.

    Args:
        found: of one kind of pass.
        memory_rate: bytes per second that the memory can do at most.
    """
    what = f"decode of a token behind {found.context}"
    if found.name != "decode":
        what = f"{found.name} of {found.tokens} tokens"
    click.echo(
        f"\n{what}: {1000 * found.seconds:.2f} ms, while watched {1000 * found.watched_seconds:.2f} ms"
    )
    rows = [_row(kernel, found, memory_rate) for kernel in found.kernels]
    rows.append((_REST, "", *_time(found.rest, found), "", "", ""))
    stdout_table(("KERNEL", ">CALLS", ">TIME", ">SHARE", ">MB", ">GB/S", ">OF MEMORY"), rows)


def _row(kernel: KernelProfile, found: PassProfile, memory_rate: float) -> tuple[str, ...]:
    moved: tuple[str, ...] = ("", "", "")
    if kernel.bytes:
        rate = kernel.rate
        moved = (
            f"{kernel.bytes / 1e6:.2f}",
            f"{rate / 1e9:.1f}",
            f"{100 * rate / memory_rate:.0f} %",
        )
    return (kernel.name, str(kernel.calls), *_time(kernel.seconds, found), *moved)


def _time(seconds: float, found: PassProfile) -> tuple[str, str]:
    share = 100 * seconds / max(found.seconds, 1e-9)
    return f"{1000 * seconds:.3f} ms", f"{share:.1f} %"
