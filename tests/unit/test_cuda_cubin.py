"""What is read of a cubin: on files built here, and against what ptxas itself tells of kernels."""

from __future__ import annotations

import struct

import pytest

from edgec.emitters.cuda_cubin import KernelFacts, kernel_facts, spilled
from edgec.errors import VerificationError

LOG = """\
ptxas info    : 24 bytes gmem
ptxas info    : Compiling entry function 'decode' for 'sm_87'
ptxas info    : Function properties for decode
ptxas         .     48 bytes stack frame, 28 bytes spill stores, 40 bytes spill loads
ptxas info    : Function properties for helper
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compiling entry function 'prefill' for 'sm_87'
ptxas info    : Function properties for prefill
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""


def _attribute(number: int, *values: int) -> bytes:
    value = struct.pack(f"<{len(values)}I", *values)
    return struct.pack("<BBH", 4, number, len(value)) + value


def _inline(number: int) -> bytes:
    """An attribute whose value is in its header."""
    return struct.pack("<BBH", 3, number, 7)


def _cubin(sections: dict[str, bytes | int], symbols: tuple[str, ...]) -> bytes:
    """An ELF file with the given sections; a number is the size of one that only takes memory."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in symbols)
    table = bytes(24)
    for name in symbols:
        offset = strings.index(b"\0" + name.encode() + b"\0") + 1
        table += struct.pack("<IBBHQQ", offset, 0x12, 0, 1, 0, 0)
    named = [".shstrtab", ".strtab", ".symtab", *sections]
    names = b"\0" + b"".join(name.encode() + b"\0" for name in named)
    contents = [names, strings, table, *sections.values()]
    rows, body = bytes(64), b""
    for name, content in zip(named, contents, strict=True):
        held = content if isinstance(content, bytes) else b""
        size = len(content) if isinstance(content, bytes) else content
        kind = {".strtab": 3, ".shstrtab": 3, ".symtab": 2}.get(name, 1)
        kind = kind if isinstance(content, bytes) else 8
        link, entry = (2, 24) if name == ".symtab" else (0, 0)
        offset = names.index(b"\0" + name.encode() + b"\0") + 1
        rows += struct.pack(
            "<IIQQQQIIQQ", offset, kind, 0, 0, 64 + len(body), size, link, 0, 1, entry
        )
        body += held
    header = struct.pack("<4sBBBB8x", b"\x7fELF", 2, 1, 1, 51)
    header += struct.pack(
        "<HHIQQQIHHHHHH", 2, 190, 126, 0, 0, 64 + len(body), 0, 64, 56, 0, 64, len(named) + 1, 1
    )
    return header + body + rows


SYMBOLS = ("decode", "prefill", "helper")
SECTIONS: dict[str, bytes | int] = {
    ".nv.info": _attribute(0x2F, 1, 40)
    + _attribute(0x11, 1, 48)
    + _inline(0x1B)
    + _attribute(0x2F, 2, 24)
    + _attribute(0x2F, 3, 90),
    ".nv.info.decode": _inline(0x03) + _attribute(0x05, 32, 4, 2),
    ".nv.info.prefill": _inline(0x03),
    ".nv.shared.decode": 1024,
}


def test_facts_of_every_kernel_are_read() -> None:
    assert kernel_facts(_cubin(SECTIONS, SYMBOLS), "sm_87", LOG) == (
        KernelFacts("decode", "sm_87", 40, 1024, 48, 68, 256),
        KernelFacts("prefill", "sm_87", 24, 0, 0, 0, 0),
    )


def test_the_systems_part_of_shared_memory_is_not_the_kernels() -> None:
    sections = {**SECTIONS, ".nv.shared.reserved.0": 0, ".nv.shared.decode": 1024 + 160}
    decode, prefill = kernel_facts(_cubin(sections, SYMBOLS), "sm_90", "")
    assert (decode.shared_bytes, prefill.shared_bytes) == (160, 0)


def test_spills_of_functions_that_kernels_call_are_not_the_kernels_own() -> None:
    assert spilled(LOG, "sm_87") == {"decode": 68, "prefill": 0}
    assert spilled(LOG, "sm_90") == {}


@pytest.mark.parametrize(
    ("section", "content", "message"),
    [
        (".nv.info", _attribute(0x2F, 9, 40), "belongs to no symbol"),
        (".nv.info", _attribute(0x2F, 1, 40), "registers of prefill"),
        (".nv.info.decode", struct.pack("<BBH", 4, 5, 12), "should have 12 bytes"),
        (".nv.info.decode", b"\x04", "should have 4 bytes"),
    ],
)
def test_damaged_attributes_are_refused(section: str, content: bytes, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        kernel_facts(_cubin({**SECTIONS, section: content}, SYMBOLS), "sm_87", "")


@pytest.mark.parametrize("size", [0, 3, 63, 100, 400])
def test_truncated_files_are_refused(size: int) -> None:
    with pytest.raises(VerificationError):
        kernel_facts(_cubin(SECTIONS, SYMBOLS)[:size], "sm_87", "")
