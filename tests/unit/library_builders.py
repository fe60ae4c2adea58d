"""Small object files and libraries, put together byte by byte from the formats' specifications."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.libraries.blob import Blob, BlobModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AARCH64, X86_64 = 183, 62
OPENCL = BlobModule(
    "opencl",
    # the format, one kernel: its key, name, two arguments, a launch tag, two marks; the code
    b"\2\0\0\0\0\0\0\0cl\1\0\0\0\0\0\0\0"
    b"\4\0\0\0\0\0\0\0copy\4\0\0\0\0\0\0\0copy"
    b"\2\0\0\0\0\0\0\0\3\x40\1\0\0\x20\1\0"
    b"\1\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0blockIdx.x"
    b"\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    b"\6\0\0\0\0\0\0\0void f",
)


def bytecode(functions: Mapping[str, int]) -> bytes:
    """The begin of a bytecode: functions by name, with their kind's number."""
    rows = [
        struct.pack("<iQ", kind, len(name)) + name.encode() + struct.pack("<5Q", 0, 0, 0, 0, 0)
        for name, kind in functions.items()
    ]
    head = struct.pack("<QQ", 0xD225DE2F4214151E, 4) + b"0.14"
    return head + struct.pack("<Q", len(rows)) + b"".join(rows)


BYTECODE = BlobModule(
    "relax.VMExecutable", bytecode({"prefill": 1, "add": 0, "vm.builtin.copy": 0})
)
BLOB = Blob((BYTECODE, BlobModule("_lib", None), OPENCL), (0, 1, 2, 2), (1, 2))


@dataclass
class _Strings:
    data: bytes = b"\0"

    def add(self, text: str) -> int:
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset


def elf(
    defined: Mapping[str, bytes],
    undefined: Sequence[str] = (),
    *,
    machine: int = AARCH64,
    shared: bool = False,
    needed: Sequence[str] = (),
    alignment: int = 0x4000,
    dynamic_flags: int = 0,
    stack_flags: int = 6,
) -> bytes:
    """An ELF object file, or a shared object whose addresses are offsets in the file."""
    names, section_names = _Strings(), _Strings()
    first_data = 64 + (2 * 56 if shared else 0)
    body = b""
    symbols = [bytes(24), struct.pack("<IBBHQQ", names.add("local"), 0, 0, 1, 0, 0)]
    for name, data in defined.items():
        body += bytes(-len(body) % 8)
        value = (first_data if shared else 0) + len(body)
        symbols.append(struct.pack("<IBBHQQ", names.add(name), 1 << 4 | 1, 0, 1, value, len(data)))
        body += data
    symbols += [struct.pack("<IBBHQQ", names.add(name), 1 << 4, 0, 0, 0, 0) for name in undefined]
    tags = [(1, names.add(name)) for name in needed]
    tags += [(14, names.add("libself.so")), (30, dynamic_flags), (0, 0), (1, 0)]
    table = 11 if shared else 2
    sections = [
        (".rodata", 1, body, 0, 0),
        (".dynsym" if shared else ".symtab", table, b"".join(symbols), 3, 24),
        (".strtab", 3, names.data, 0, 0),
    ]
    if shared:
        dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
        sections.append((".dynamic", 6, dynamic, 3, 16))
    numbered = [(section_names.add(text), a, b, c, d) for text, a, b, c, d in sections]
    last = section_names.add(".shstrtab")
    numbered.append((last, 3, section_names.data, 0, 0))
    contents, rows = b"", [bytes(64)]
    for label, kind, data, link, entry in numbered:
        offset = first_data + len(contents)
        # A symbol table's header says where its global symbols begin.
        info = 2 if kind == table else 0
        rows.append(
            struct.pack("<IIQQQQIIQQ", label, kind, 2, 0, offset, len(data), link, info, 8, entry)
        )
        contents += data + bytes(-len(data) % 8)
    end = first_data + len(contents)
    header = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH",
        3 if shared else 1,
        machine,
        1,
        0,
        64 if shared else 0,
        end,
        0,
        64,
        56 if shared else 0,
        2 if shared else 0,
        64,
        len(rows),
        len(rows) - 1,
    )
    segments = b""
    if shared:
        segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, alignment)
        segments += struct.pack("<IIQQQQQQ", 0x6474E551, stack_flags, 0, 0, 0, 0, 0, 16)
    return header + segments + contents + b"".join(rows)


def macho(
    defined: Mapping[str, bytes],
    undefined: Sequence[str] = (),
    *,
    relocations: Sequence[tuple[int, int]] = (),
    version: int = 16 << 16 | 4 << 8,
) -> bytes:
    """A Mach-O object file for iOS on arm64; the names get their underscores here."""
    names = _Strings()
    head = 32 + 72 + 80 + 24 + 24
    body = b""
    symbols = []
    base = 0x100
    for name, data in defined.items():
        body += bytes(-len(body) % 8)
        symbols.append(struct.pack("<IBBHQ", names.add(f"_{name}"), 0xF, 1, 0, base + len(body)))
        body += data
    symbols += [struct.pack("<IBBHQ", names.add(f"_{name}"), 1, 0, 0, 0) for name in undefined]
    symbols.append(struct.pack("<IBBHQ", names.add("ltmp0"), 0xE, 1, 0, base))
    places = head + len(body)
    table = places + 8 * len(relocations)
    strings = table + 16 * len(symbols)
    header = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 1, 3, head - 32, 0, 0)
    segment = struct.pack("<II16sQQQQIIII", 0x19, 152, b"", 0, 0x200, head, len(body), 7, 7, 1, 0)
    section = struct.pack(
        "<16s16sQQ8I",
        b"__const",
        b"__TEXT",
        base,
        len(body),
        head,
        3,
        places,
        len(relocations),
        0,
        0,
        0,
        0,
    )
    build = struct.pack("<6I", 0x32, 24, 2, version, version, 0)
    symtab = struct.pack("<6I", 0x2, 24, table, len(symbols), strings, len(names.data))
    filled = b"".join(struct.pack("<II", *row) for row in relocations)
    return b"".join((header, segment, section, build, symtab, body, filled, *symbols, names.data))
