"""Opening a library: whatever file it lies in, the same parts come out."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from damage import damaged, survives
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_builders import BLOB, BYTECODE, OPENCL, X86_64, elf, macho

from edgec.errors import UsageError, VerificationError
from edgec.libraries.ar import build_archive
from edgec.libraries.blob import Blob, BlobModule
from edgec.libraries.facts import facts
from edgec.libraries.members import Member
from edgec.libraries.open import open_libraries, open_library
from edgec.libraries.tarball import write_tar

if TYPE_CHECKING:
    from pathlib import Path

RAISE = "TVMFFIErrorSetRaisedFromCStrParts"
BIN, CTX = "__tvm_ffi__library_bin", "__tvm_ffi__library_ctx"


def host(prefix: str = "") -> dict[str, bytes]:
    """What the host code defines: two functions, and names that look like functions."""
    return {
        f"__tvm_ffi_{prefix}add": b"code",
        f"__tvm_ffi_{prefix}take": b"code",
        f"{prefix}{CTX}": bytes(8),
        "__tvm_ffi__metadata_add": b"text",
        "__truncsfhf2": b"code",
    }


def shared(blob: Blob = BLOB) -> bytes:
    return elf({**host(), BIN: blob.to_bytes()}, [RAISE], shared=True, needed=["libc.so"])


def parts(prefix: str, *, mach: bool = False) -> list[Member]:
    write = macho if mach else elf
    return [
        Member("lib0.o", write(host(prefix), [RAISE, "expf"])),
        Member(f"{prefix}devc.o", write({f"{prefix}{BIN}": BLOB.to_bytes()}, ["add_one"])),
    ]


def files() -> dict[str, tuple[bytes, str]]:
    """Files with the library in them, and their forms."""
    return {
        "model.so": (shared(), "elf-shared"),
        "model.tar": (write_tar(parts("")), "tar"),
        "tiny.tar": (write_tar(parts("tiny_")), "tar"),
        "libmodel.a": (build_archive(parts("tiny_"), "gnu"), "elf-archive"),
        "libphone.a": (build_archive(parts("tiny_", mach=True), "darwin"), "macho-archive"),
    }


@pytest.mark.parametrize("name", files())
def test_the_same_parts_come_out_of_every_form(name: str, tmp_path: Path) -> None:
    data, form = files()[name]
    path = tmp_path / name
    path.write_bytes(data)
    library = open_library(path)
    assert (library.path, library.form, library.machine) == (path, form, "aarch64")
    assert library.prefix == ("" if name.startswith("model") else "tiny_")
    assert library.blob == BLOB
    assert library.bytecode == BYTECODE.data
    assert library.device is not None
    assert library.device.to_bytes() == OPENCL.data
    assert library.host_functions == ("add", "take")
    symbols = {symbol for item in library.objects for symbol in item.image.exported}
    assert library.host_symbol("add") in symbols
    assert library.object_format == ("macho" if name == "libphone.a" else "elf")


def test_a_library_without_kernels(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(shared(Blob((BYTECODE, BlobModule("_lib", None)), (0, 1, 1), (1,))))
    assert open_library(path).device is None


def test_one_of_several_libraries_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "libmodel.a"
    path.write_bytes(build_archive(parts("tiny_") + parts("tiny_two_"), "gnu"))
    assert open_library(path, "tiny_two_").host_functions == ("add", "take")
    # The other's functions begin with this one's prefix, and aren't this one's.
    assert open_library(path, "tiny_").host_functions == ("add", "take")
    with pytest.raises(UsageError, match="2 libraries in it, with the prefixes tiny_, tiny_two_"):
        open_library(path)
    with pytest.raises(VerificationError, match="no library with the prefix 'large_', only"):
        open_library(path, "large_")
    assert [item.prefix for item in open_libraries(path)] == ["tiny_", "tiny_two_"]


def test_facts_of_a_shared_object(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(shared())
    found = facts(open_library(path))
    assert BYTECODE.data is not None
    assert OPENCL.data is not None
    assert found == {
        "form": "elf-shared",
        "format": "elf",
        "machine": "aarch64",
        "prefix": "",
        "files": [{"name": "model.so", "bytes": len(shared())}],
        "exported": sorted([*host(), BIN]),
        "undefined": [RAISE],
        "needed": ["libc.so"],
        "load_alignment": 0x4000,
        "platform": None,
        "minimum_version": None,
        "modules": [
            {"kind": "relax.VMExecutable", "bytes": len(BYTECODE.data)},
            {"kind": "_lib", "bytes": None},
            {"kind": "opencl", "bytes": len(OPENCL.data)},
        ],
        "functions": ["prefill"],
        "builtins": ["vm.builtin.copy"],
        "host_functions": 2,
        "kernels": 1,
        "kernel_format": "cl",
    }


def test_facts_of_an_archive_for_ios(tmp_path: Path) -> None:
    path = tmp_path / "libmodel.a"
    members = [*parts("tiny_", mach=True), Member("more.o", macho({"add_one": b"code"}))]
    path.write_bytes(build_archive(members, "darwin"))
    found = facts(open_library(path))
    assert (found["platform"], found["minimum_version"]) == ("ios", "16.4")
    assert found["load_alignment"] is None
    assert found["builtins"] == ["vm.builtin.copy"]
    # add_one is asked for by one object file and defined by another.
    assert found["undefined"] == [RAISE, "expf"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither a library nor a tar"),
        (b"text", "a tar header"),
        (elf({BIN: BLOB.to_bytes()}), "one part of a library, of the kind object"),
        (elf({"f": b"1"}, shared=True), f"no symbol ends in {BIN}"),
        (elf({BIN: b"123"}, shared=True), "the blob"),
        (write_tar([Member("a.txt", b"1")]), "no object file in it"),
        (
            build_archive([*parts("t_"), Member("b.o", elf({}, machine=X86_64))], "gnu"),
            "of different kinds",
        ),
        (shared(Blob((OPENCL,), (0, 0), ())), "0 modules hold bytecode, one should"),
        (shared(Blob((BYTECODE, BYTECODE), (0, 1, 1), (1,))), "2 modules hold bytecode"),
        (
            shared(Blob((BYTECODE, OPENCL, OPENCL), (0, 2, 2, 2), (1, 2))),
            r"2 modules hold kernels \(opencl, opencl\)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_library(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(data)
    with pytest.raises(VerificationError, match=message) as caught:
        open_library(path)
    assert str(path) in caught.value.where


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the library can't be read: No such file"):
        open_library(tmp_path / "model.so")


@settings(
    max_examples=300,
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.one_of(*(damaged(data) for data, _ in files().values())))
def test_damage_is_answered_with_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "here"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        facts(open_library(path))

    survives(read, data)
