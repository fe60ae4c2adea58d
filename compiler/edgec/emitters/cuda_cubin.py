"""What machine code for one GPU says of its kernels: registers, shared memory, stack, threads.

A cubin is an ELF file. Its sections ``.nv.info`` (all kernels) and ``.nv.info.<kernel>`` are lists
of attributes: a byte that names the layout, a byte that names the attribute, then two bytes of
value, or two bytes of size and as many of value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.libraries.cursor import Cursor, damaged
from edgec.libraries.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Iterator

_INFO, _SHARED = ".nv.info", ".nv.shared."
# From sm_90 on, each block's shared memory begins with a part of the system's.
_RESERVED, _RESERVED_BYTES = ".nv.shared.reserved.0", 1024
_SIZED = 4  # the layout with a size before the value
_MAX_THREADS, _FRAME_SIZE, _REGISTERS = 0x05, 0x11, 0x2F

_PTXAS_KERNEL = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
_PTXAS_PROPERTIES = re.compile(r"Function properties for (\S+)")
_PTXAS_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True)
class KernelFacts:
    """What one kernel takes of a GPU.

    Attributes:
        name: of the kernel.
        architecture: of the GPU: ``"sm_87"``.
        registers: 32-bit registers per thread.
        shared_bytes: shared memory per block, without what a launch adds.
        stack_bytes: memory per thread for arrays whose index isn't known when compiling, and for
            spilled registers.
        spill_bytes: moved per thread to and from memory because registers were short; counted once
            for each place in the code.
        max_threads: per block, at most; zero if the text doesn't bound them.
    """

    name: str
    architecture: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int
    max_threads: int


def kernel_facts(cubin: bytes, architecture: str, log: str) -> tuple[KernelFacts, ...]:
    """Read the facts of all kernels of a cubin.

    Args:
        cubin: machine code for one architecture.
        architecture: the one it was compiled for.
        log: of that compilation, with ``ptxas -v``: it alone knows of spills.

    Returns:
        One entry per kernel, sorted by name.

    Raises:
        VerificationError: the cubin is damaged.
    """
    where = f"the machine code for {architecture}"
    elf = Elf.parse(cubin, where)
    names = [symbol.name for symbol in elf.symbols]
    frames: dict[str, int] = {}
    registers: dict[str, int] = {}
    threads: dict[str, int] = {}
    shared: dict[str, int] = {}
    kernels = set()
    reserved = _RESERVED_BYTES if any(s.name == _RESERVED for s in elf.sections) else 0
    for section in elf.sections:
        if section.name.startswith(_SHARED):
            shared[section.name.removeprefix(_SHARED)] = max(section.size - reserved, 0)
        elif section.name.startswith(_INFO):
            kernel = section.name.removeprefix(_INFO).removeprefix(".")
            if kernel:
                kernels.add(kernel)
            for attribute, value in _attributes(Cursor(elf.section_data(section), where)):
                if attribute == _MAX_THREADS and kernel:
                    x, y, z = value.unpack("III", "the bound of threads")
                    threads[kernel] = x * y * z
                elif attribute in {_FRAME_SIZE, _REGISTERS}:
                    index, number = value.unpack("II", "an attribute of a kernel")
                    if index >= len(names):
                        raise damaged("an attribute belongs to no symbol", where)
                    (frames if attribute == _FRAME_SIZE else registers)[names[index]] = number
    spills = spilled(log, architecture)
    missing = sorted(kernels - registers.keys())
    if missing:
        raise damaged(f"the registers of {missing[0]} are not told", where)
    return tuple(
        KernelFacts(
            name,
            architecture,
            registers[name],
            shared.get(name, 0),
            frames.get(name, 0),
            spills.get(name, 0),
            threads.get(name, 0),
        )
        for name in sorted(kernels)
    )


def spilled(log: str, architecture: str) -> dict[str, int]:
    """Bytes that each kernel spills, stores and loads together, as ``ptxas -v`` told."""
    entries = set()
    found: dict[str, int] = {}
    current = ""
    for line in log.splitlines():
        if match := _PTXAS_KERNEL.search(line):
            if match[2] == architecture:
                entries.add(match[1])
        elif match := _PTXAS_PROPERTIES.search(line):
            current = match[1]
        elif (match := _PTXAS_SPILLS.search(line)) and current in entries:
            found[current] = int(match[1]) + int(match[2])
    return found


def _attributes(cursor: Cursor) -> Iterator[tuple[int, Cursor]]:
    while cursor.left:
        layout, attribute, size = cursor.unpack("BBH", "an attribute of a kernel")
        held = cursor.view(size if layout == _SIZED else 0, "an attribute of a kernel")
        yield attribute, Cursor(held, cursor.where)
