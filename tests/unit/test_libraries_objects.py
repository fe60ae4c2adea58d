"""ELF and Mach-O files: symbols, segments, relocations; damage is answered."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import timedelta

import pytest
from damage import damaged, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from library_builders import X86_64, elf, macho

from edgec.errors import VerificationError
from edgec.libraries.elf import Elf
from edgec.libraries.macho import MachO, MachORelocation
from edgec.libraries.members import Member
from edgec.libraries.objects import parse_image, parse_objects

SLOW = timedelta(seconds=10)
names = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=200)
contents = st.dictionaries(names, st.binary(min_size=1, max_size=20), max_size=5)

OBJECT = elf({"one": b"first", "two": b"second"}, ["asked"])
SHARED = elf({"one": b"first", "two": b"second"}, ["asked"], shared=True, needed=["libc.so"])
MACHO = macho({"one": b"first", "two": b"second"}, ["asked"], relocations=[(4, 0x2D000001)])


def look_at_all(data: bytes) -> None:
    """Read whatever can be read."""
    image = parse_image(data, "here")
    for name in image.exported:
        image.read(name)
    _ = image.undefined, image.index_names, image.needed
    if isinstance(image, Elf):
        _ = image.symbols, image.dynamic_symbols, image.soname, image.search_paths
        _ = image.writes_text, image.executable_stack, image.load_alignment
        for section in image.sections:
            image.section_data(section)
    else:
        for part in image.sections:
            image.section_data(part)
            image.relocations(part)


@settings(deadline=SLOW)
@given(defined=contents, asked=st.sets(names, max_size=4), shared=st.booleans())
def test_elf_files_are_read_as_they_were_written(
    defined: dict[str, bytes], asked: set[str], shared: bool
) -> None:
    asked -= set(defined)
    image = Elf.parse(elf(defined, sorted(asked), shared=shared), "here")
    assert image.exported == tuple(sorted(defined))
    assert image.undefined == tuple(sorted(asked))
    for name, data in defined.items():
        assert image.read(name)[: len(data)] == data


@settings(deadline=SLOW)
@given(defined=contents, asked=st.sets(names, max_size=4))
def test_macho_files_are_read_as_they_were_written(
    defined: dict[str, bytes], asked: set[str]
) -> None:
    asked -= set(defined)
    image = MachO.parse(macho(defined, sorted(asked)), "here")
    assert image.exported == tuple(sorted(defined))
    assert image.undefined == tuple(sorted(asked))
    assert image.index_names == tuple(f"_{name}" for name in defined)
    for name, data in defined.items():
        assert image.read(name)[: len(data)] == data


def test_an_object_file() -> None:
    image = Elf.parse(OBJECT, "here")
    assert (image.format, image.kind, image.machine) == ("elf", "object", "aarch64")
    assert [section.name for section in image.sections] == [
        "",
        ".rodata",
        ".symtab",
        ".strtab",
        ".shstrtab",
    ]
    assert image.index_names == ("one", "two")
    assert [(s.name, s.binding, s.defined) for s in image.symbols[1:]] == [
        ("local", "local", True),
        ("one", "global", True),
        ("two", "global", True),
        ("asked", "global", False),
    ]
    assert (image.segments, image.load_alignment, image.needed) == ((), 0, ())


def test_a_shared_object() -> None:
    image = Elf.parse(SHARED, "here")
    assert (image.kind, image.needed, image.soname) == ("shared", ("libc.so",), "libself.so")
    assert (image.load_alignment, image.writes_text, image.executable_stack) == (
        0x4000,
        False,
        False,
    )
    assert image.search_paths == ()
    assert bytes(image.read("two")[:6]) == b"second"
    bad = Elf.parse(elf({}, shared=True, dynamic_flags=4, stack_flags=7, alignment=0x1000), "here")
    assert (bad.load_alignment, bad.writes_text, bad.executable_stack) == (0x1000, True, True)


def test_what_is_weak_need_not_be_defined_and_what_is_hidden_is_not_exported() -> None:
    data = elf({"one": b"1"}, ["asked"])
    weak = data.replace(b"\x10\0\0\0" + bytes(16), b"\x20\0\0\0" + bytes(16))
    assert Elf.parse(data, "here").undefined == ("asked",)
    assert Elf.parse(weak, "here").undefined == ()
    hidden = data.replace(b"\x11\0\1\0", b"\x11\2\1\0")
    assert Elf.parse(hidden, "here").exported == ()


def test_a_macho_object() -> None:
    image = MachO.parse(MACHO, "here")
    assert (image.format, image.kind, image.machine) == ("macho", "object", "aarch64")
    assert (image.platform, image.minimum_version, image.needed) == ("ios", "16.4", ())
    (section,) = image.sections
    assert (section.segment, section.name, section.alignment) == ("__TEXT", "__const", 8)
    assert [s.linker_name for s in image.symbols] == ["_one", "_two", "_asked", "ltmp0"]
    assert image.relocations(section) == (
        MachORelocation(4, 1, external=True, relative=True, size=4, kind="branch26"),
    )


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        # From the highest bit: kind (4), external (1), size (2), relative (1), number (24).
        (0x3D000005, (5, True, True, 4, "page21")),
        (0x4C000005, (5, True, False, 4, "pageoff12")),
        (0x0E000002, (2, True, False, 8, "unsigned")),
        (0x06000002, (2, False, False, 8, "unsigned")),
        (0x1C000002, (2, True, False, 4, "subtractor")),
        (0xA4000070, (0x70, False, False, 4, "addend")),
        (0xA4FFFFFE, (-2, False, False, 4, "addend")),
    ],
)
def test_relocations(bits: int, expected: tuple[int, bool, bool, int, str]) -> None:
    image = MachO.parse(macho({"f": bytes(8)}, relocations=[(4, bits)]), "here")
    (found,) = image.relocations(image.sections[0])
    assert (found.number, found.external, found.relative, found.size, found.kind) == expected


@settings(max_examples=500, deadline=SLOW)
@given(data=st.one_of(damaged(OBJECT), damaged(SHARED), damaged(MACHO)))
def test_damage_is_answered_with_an_error(data: bytes) -> None:
    survives(look_at_all, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither ELF nor Mach-O"),
        (b"\x7fELF", "the ELF header"),
        (b"\x7fELF\1" + OBJECT[5:], "64-bit little-endian"),
        (OBJECT[:40] + bytes(8) + OBJECT[48:], "no section headers"),
        (OBJECT[:58] + b"\1\0" + OBJECT[60:], "should not have 1 bytes"),
        (OBJECT[:62] + b"\x99\0", "it ends after 64 bytes, before byte"),
        (OBJECT[:62] + b"\x99\0" + OBJECT[64:], "no names of sections"),
        (MACHO[:20] + b"\xff\xff\0\0" + MACHO[24:], "the load commands"),
        (MACHO[:16] + b"\x09\0\0\0" + MACHO[20:], "a load command"),
        (MACHO[:36] + b"\1\0\0\0" + MACHO[40:], "a load command"),
        (macho({"f": b"1"}, relocations=[(1 << 31, 0)]), "scattered"),
        (macho({"f": b"1"}, relocations=[(0, 0xF << 28)]), "no relocation of the kind 15"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_an_object_file(data: bytes, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        look_at_all(data)


def test_symbols_outside_the_file() -> None:
    data = elf({"one": b"1"})
    row = struct.pack("<HQQ", 1, 0, 1)
    assert data.count(row) == 1
    moved = Elf.parse(data.replace(row, struct.pack("<HQQ", 1, 1 << 40, 1)), "here")
    with pytest.raises(VerificationError, match="the symbol one lies outside the file"):
        moved.read("one")
    with pytest.raises(VerificationError, match="there is no symbol two"):
        moved.read("two")


def test_elf_files_have_one_symbol_table() -> None:
    image = Elf.parse(OBJECT, "here")
    (table,) = [section for section in image.sections if section.name == ".symtab"]
    twice = replace(image, sections=(*image.sections, table))
    with pytest.raises(VerificationError, match="there are 2 sections of the kind 2"):
        _ = twice.symbols


def test_object_files_of_one_library_are_for_one_machine() -> None:
    members = [Member("a.o", OBJECT), Member("notes.txt", b"text")]
    assert [o.name for o in parse_objects(members, "here")] == ["a.o"]
    with pytest.raises(VerificationError, match="elf aarch64 and elf x86_64"):
        parse_objects([*members, Member("b.o", elf({}, machine=X86_64))], "here")
    with pytest.raises(VerificationError, match="elf aarch64 and macho aarch64"):
        parse_objects([*members, Member("b.o", MACHO)], "here")
    with pytest.raises(VerificationError, match="there is no object file in it"):
        parse_objects(members[1:], "here")
