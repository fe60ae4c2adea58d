"""Says in words what the engine found."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from edgec.standins.emulation import engine
from edgec.standins.faults import KernelFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.standins.emulation.engine import Fault, Party

# An address that is further from every buffer tells nothing about one.
_NEAR = 1 << 20
# The kernel's code of a signal (SI_KERNEL) where the processor gives no address.
_PROTECTION = 0x80
# Never mapped.
_FIRST_PAGE = 4096
# A value of Party.known.
_GROUP_ONLY = 2


def to_error(
    kernel: str,
    fault: Fault,
    arguments: Sequence[int | float],
    sizes: Mapping[int, int],
    seconds: float,
) -> KernelFault:
    """The error for a fault.

    Args:
        kernel: the kernel's name.
        fault: what the engine found.
        arguments: of the launch.
        sizes: bytes behind each handle.
        seconds: the time limit.
    """
    actor = _party(fault.actor)
    words = {
        engine.OUT_OF_BOUNDS: _out_of_bounds,
        engine.READ_ONLY: _read_only,
        engine.RACE: _race,
        engine.DIVERGENT: _divergent,
        engine.FOREIGN_STACK: _foreign,
    }
    if fault.kind in words:
        what = words[fault.kind](fault)
    elif fault.kind == engine.SIGNAL:
        what = _signal(fault, arguments, sizes)
    elif fault.kind == engine.ENDLESS:
        what = f"it doesn't end: {seconds:g} seconds of processor time are over"
    elif fault.kind == engine.STACK:
        what = "a work-item needs more private memory (its stack) than 256 KiB"
    else:
        what = fault.reason.decode(errors="replace")
    return KernelFault(kernel, what, actor)


def _party(party: Party) -> str:
    if party.known == _GROUP_ONLY:
        return f"work-group {party.group}"
    return f"work-group {party.group}, work-item {party.item}"


def _place(fault: Fault) -> str:
    if fault.place == engine.LOCAL:
        return "local memory"
    if fault.place == engine.DYNAMIC:
        return "dynamic shared memory"
    return f"argument {fault.place}"


def _access(fault: Fault, party: Party | None = None) -> str:
    return "writes" if (party or fault.actor).writes else "reads"


def _out_of_bounds(fault: Fault) -> str:
    access = f"it {_access(fault)} {fault.size} bytes"
    if fault.place == engine.NOWHERE:
        return f"{access} at an address outside of all its arguments and of its local memory"
    what = _place(fault)
    if fault.offset < 0:
        return f"{access} that begin {-fault.offset} bytes before the start of {what}"
    if fault.offset < fault.extent:
        return f"{access} at byte {fault.offset} of {what}, which ends after {fault.extent} bytes"
    past = fault.offset - fault.extent
    return (
        f"{access} at byte {fault.offset} of {what}, which has {fault.extent} bytes"
        f" ({past} bytes past its end)"
    )


def _read_only(fault: Fault) -> str:
    return (
        f"it writes {fault.size} bytes at byte {fault.offset} of {_place(fault)},"
        " which it declares const"
    )


def _race(fault: Fault) -> str:
    where = f"byte {fault.offset} of {_place(fault)}"
    now, before = fault.actor, fault.other
    same_group = str(now.group) == str(before.group)
    verbs = ("write" if now.writes else "read", "write" if before.writes else "read")
    accesses = f"{verbs[0]} and the {verbs[1]}"
    if not same_group:
        return (
            f"{where} is {_past(before)} by {_party(before)} and {_past(now)} by another"
            f" work-group, and nothing orders the {accesses} of different work-groups"
        )
    other = f"work-item {before.item}" if before.known else "other work-items"
    values = " different bytes" if now.writes and before.writes else ""
    return (
        f"{where} is {_past(before)} by {other} and {_past(now)} by another work-item of the same"
        f" work-group{' with' + values if values else ''}: a barrier is missing between the"
        f" {accesses}"
    )


def _past(party: Party) -> str:
    return "written" if party.writes else "read"


def _divergent(fault: Fault) -> str:
    other = fault.other
    does = "waits at another one" if other.writes else "has returned"
    return (
        f"a work-item waits at a barrier that not all of its work-group reach:"
        f" work-item {other.item} {does}"
    )


def _foreign(fault: Fault) -> str:
    return f"it {_access(fault)} {fault.size} bytes of another work-item's private memory"


def _signal(fault: Fault, arguments: Sequence[int | float], sizes: Mapping[int, int]) -> str:
    if fault.signal == signal.SIGFPE:
        return "it divides an integer by zero"
    if fault.signal == signal.SIGILL:
        return "it executes an instruction that traps, which the compiler puts where behaviour is undefined"
    if fault.code == _PROTECTION:
        return "it accesses an address that isn't aligned as its type asks for, or isn't one at all"
    if fault.address < _FIRST_PAGE:
        return f"it accesses address {fault.address}: a buffer that is null"
    near = ""
    for index, size in sizes.items():
        past = fault.address - int(arguments[index]) - size
        if 0 <= past < _NEAR:
            near = f", {past} bytes past the end of argument {index}"
        elif -_NEAR < past + size < 0:
            near = f", {-past - size} bytes before the start of argument {index}"
    return f"it accesses memory that doesn't exist, at {fault.address:#x}{near}"
