"""Which programs are found for a target, and what is said where they are missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgec.diagnosis import device_tools, machine
from edgec.emitters import toolchain
from edgec.emitters.linking import without_initializers
from edgec.emitters.toolchain import linker_for, tool_versions
from edgec.errors import ToolchainError
from edgec.libraries.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.emitters.cuda_toolkit import CudaToolkit

ARM, ANDROID, X86 = "aarch64-linux-gnu", "aarch64-linux-android24", "x86_64-linux-gnu"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A machine with x86-64 and Linux, on which nothing is installed but what a test asks for."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    for variable in ("CC", "CXX", "CLANG", "LLD", "QEMU_AARCH64", toolchain.NDK_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(toolchain.sys, "platform", "linux")
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda _name: None)

    def add(name: str, version: str = "") -> Path:
        path = programs / name
        path.write_text(f"#!/bin/sh\necho '{version or name}'\n")
        path.chmod(0o755)
        return path

    return add


@pytest.mark.parametrize(
    ("installed", "platform", "triple", "chosen"),
    [
        (["cc", "ld.lld"], "cpu", X86, "cc"),
        (["cc", "ld.lld"], "linux", X86, "cc"),
        (["cc", "ld.lld"], "linux", ARM, "ld.lld"),
        (["cc", "ld.lld"], "android", ANDROID, "ld.lld"),
        (["cc", "ld.lld", "aarch64-linux-gnu-gcc"], "cuda", ARM, "ld.lld"),
        (["cc", "aarch64-linux-gnu-gcc"], "cuda", ARM, "aarch64-linux-gnu-gcc"),
        (["ld.lld", "ld.lld-9", "ld.lld-14", "ld.lld-19"], "linux", ARM, "ld.lld-19"),
    ],
)
def test_the_linker_of_a_target(
    install: Callable[..., Path], installed: list[str], platform: str, triple: str, chosen: str
) -> None:
    paths = {name: install(name) for name in installed}
    linker = linker_for(platform, triple)
    assert linker.command == (str(paths[chosen]),)
    assert linker.driver is ("lld" not in chosen)


def test_the_linker_of_a_python_package(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("aarch64-linux-gnu-gcc")
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: name == "ziglang")
    linker = linker_for("linux", ARM)
    assert linker.command == (sys.executable, "-m", "ziglang", "ld.lld")
    assert not linker.driver


def test_an_arm_machine_links_for_itself(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "aarch64")
    compiler = install("cc")
    assert linker_for("linux", ARM).command == (str(compiler),)
    with pytest.raises(ToolchainError):
        linker_for("android", ANDROID)
    install("ld.lld")
    assert not linker_for("cuda", X86).driver


def test_an_ndk_links_for_android_and_nothing_else(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lld, clang = install("ld.lld"), install("aarch64-linux-android24-clang")
    monkeypatch.setenv(toolchain.NDK_VARIABLE, str(clang))
    assert linker_for("android", ANDROID) == toolchain.Linker((str(clang),), driver=True)
    assert linker_for("linux", ARM).command == (str(lld),)


def test_a_missing_linker_is_one_sentence_with_a_command(install: Callable[..., Path]) -> None:
    install("cc")
    with pytest.raises(ToolchainError) as error:
        linker_for("android", ANDROID)
    assert str(error.value) == (
        "ld.lld: there is no LLVM linker (ld.lld), which links the library for"
        " aarch64-linux-android24; run: pip install ziglang"
        " (or on Debian or Ubuntu: apt-get install lld-19)"
    )


@pytest.mark.parametrize("variable", ["LLD", "TVM_NDK_CC"])
def test_a_variable_that_names_no_program(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    install("ld.lld")
    monkeypatch.setenv(variable, "no-such-program")
    with pytest.raises(ToolchainError, match=f"{variable}.*'no-such-program', which is no program"):
        linker_for("android", ANDROID)


def test_what_the_bytes_depend_on(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ld.lld-18", "LLD 18.1.0")
    assert tool_versions("android", ANDROID, ("shared", "system")) == {"linker": "LLD 18.1.0"}
    assert tool_versions("ios", "arm64-apple-ios16.0", ("system",)) == {}
    toolkit = SimpleNamespace(parts={"nvrtc": "12.6.85", "headers": "12.6.77"})
    monkeypatch.setattr(toolchain, "find_toolkit", lambda wanted: toolkit if wanted == "12" else 0)
    assert tool_versions("cuda", ARM, ("shared",), ("sm_87",), "12") == {
        "linker": "LLD 18.1.0",
        "cuda.nvrtc": "12.6.85",
        "cuda.headers": "12.6.77",
    }


def test_xcode_is_used_where_it_can_compile(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("xcrun", "Apple metal version 32023")
    assert toolchain.metal_compiler() is None
    monkeypatch.setattr(toolchain.sys, "platform", "darwin")
    toolchain.version.cache_clear()
    assert toolchain.metal_compiler() == ("xcrun", "-sdk", "iphoneos", "metal")
    assert tool_versions("ios", "arm64-apple-ios16.0", ("system",)) == {
        "metal": "Apple metal version 32023"
    }
    toolchain.version.cache_clear()
    (Path(install("nothing")).parent / "xcrun").write_text("#!/bin/sh\nexit 72\n")
    assert toolchain.metal_compiler() is None
    toolchain.version.cache_clear()


# Initializers


def _object(kinds: list[int]) -> bytes:
    """An ELF object file of nothing but section headers, of these kinds, with distinct names."""
    names = b"\0" + b"".join(b"s%d\0" % index for index in range(len(kinds)))
    rows = [(0, 0, 0, 0)]
    rows += [(1 + 3 * index, kind, 3, 0) for index, kind in enumerate(kinds)]
    rows.append((0, 3, 0, len(names)))
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    table = 64 + len(names)
    fields = (1, 183, 1, 0, 0, table, 0, 64, 0, 0, 64, len(rows), len(rows) - 1)
    header += b"".join(
        value.to_bytes(size, "little")
        for value, size in zip(fields, (2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2), strict=True)
    )
    sections = b"".join(
        name.to_bytes(4, "little")
        + kind.to_bytes(4, "little")
        + flags.to_bytes(8, "little")
        + bytes(8)
        + (64).to_bytes(8, "little")
        + size.to_bytes(8, "little")
        + bytes(24)
        for name, kind, flags, size in rows
    )
    return header + names + sections


def test_initializers_are_left_out_and_nothing_else_changes() -> None:
    data = _object([1, 14, 8])
    before, after = Elf.parse(data, "before"), Elf.parse(without_initializers(data), "after")
    assert [section.name for section in after.sections] == [s.name for s in before.sections]
    assert [s.flags for s in after.sections] == [0, 3, 3 | 0x80000000, 3, 0]
    changed = [a != b for a, b in zip(data, after.data, strict=True)]
    assert sum(changed) == 1


# The doctor


def _states(target: str) -> dict[str, str]:
    return {check.name: check.state for check in device_tools.check_tools([target])}


def test_the_doctor_names_what_a_phone_needs(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_tools.platform, "machine", lambda: "x86_64")
    names = {"linker", "C++ compiler", "clang", "aarch64 C++", "qemu-aarch64"}
    found = _states("android-adreno")
    assert found == {name: "missing" if name == "linker" else "warning" for name in names}
    assert all("install" in check.remedy for check in device_tools.check_tools(["android-adreno"]))
    for program in ("ld.lld-19", "g++", "clang-19", "clang++-19", "qemu-aarch64"):
        install(program)
    install("aarch64-linux-gnu-g++")
    assert _states("android-adreno") == dict.fromkeys(names, "ok")
    linker = next(iter(device_tools.check_tools(["android-adreno"])))
    assert "bin/ld.lld-19)" in linker.found
    assert _states("linux-arm64").keys() == names - {"clang"}
    assert "verified with emulator" in machine.check_target("android-adreno").found
    # Its objects are linked only to be verified.
    assert _states("ios-metal").keys() == names - {"linker"} | {"lld"}


def test_the_doctor_names_the_cuda_toolkit(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(wanted: str | None) -> CudaToolkit:
        raise ToolchainError(f"version {wanted} was not found", remedy="run: pip install it")

    monkeypatch.setattr(device_tools, "find_toolkit", none)
    check = next(c for c in device_tools.check_tools(["jetson-orin"]) if "CUDA" in c.name)
    assert (check.state, check.found) == ("missing", "version 12 was not found")
    toolkit = SimpleNamespace(version="12.6.85", nvrtc="/x/libnvrtc.so.12")
    monkeypatch.setattr(device_tools, "find_toolkit", lambda _wanted: toolkit)
    check = next(c for c in device_tools.check_tools(["jetson-orin"]) if "CUDA" in c.name)
    assert (check.state, check.found) == ("ok", "12.6.85 (/x/libnvrtc.so.12)")


def test_the_doctor_looks_for_each_program_once(install: Callable[..., Path]) -> None:
    install("ld.lld")
    checks = list(device_tools.check_tools(["android-adreno", "android-mali", "no-such-target"]))
    assert len(checks) == len({check.name for check in checks})
    assert list(device_tools.check_tools(["x86-64-v3"])) == []
