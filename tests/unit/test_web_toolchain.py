"""Which compiler makes libraries for browsers, and what is said where none can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgec.emitters.web import toolchain, wasi
from edgec.emitters.web.toolchain import find_web_toolchain, web_toolchain_report
from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

ALL = ("clang", "wasm-ld", "builtins", "libc", "libc++")


class Machine:
    """A machine on which nothing is installed but what a test asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.system = folder / "usr"
        (folder / "bin").mkdir()

    def clang(self, number: int = 19, parts: tuple[str, ...] = ALL) -> Path:
        """Debian's clang; its path."""
        program = self.folder / f"bin/clang++-{number}"
        self._compiler(program, number, parts, self.system, self.system)
        return program

    def sdk(self, number: int = 20) -> Path:
        """A WASI SDK; its folder."""
        folder = self.folder / "sdk"
        self._compiler(folder / "bin/clang++", number, ALL, folder, folder / "share/wasi-sysroot")
        return folder

    def program(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def emcc(self, folder: str) -> Path:
        return self.program(self.folder / folder / "emcc", "echo 'emcc 3.1'")

    def _compiler(
        self, program: Path, number: int, parts: tuple[str, ...], root: Path, sysroot: Path
    ) -> None:
        resources = root / f"clang/{number}"
        linker = self.folder / f"bin/wasm-ld-{number}"
        headers, libraries = sysroot / "include/wasm32-wasi", sysroot / "lib/wasm32-wasi"
        files = {
            "builtins": [resources / "lib/wasi/libclang_rt.builtins-wasm32.a"],
            "libc": [headers / "stdio.h", libraries / "crt1-reactor.o", libraries / "libc.a"],
            "libc++": [
                headers / "c++/v1/vector",
                libraries / "libc++.a",
                libraries / "libc++abi.a",
            ],
        }
        for path in [path for part in parts for path in files.get(part, ())]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(path.name.encode())
        if "wasm-ld" in parts:
            self.program(linker, f"echo 'LLD {number}.1.7'")
        if "clang" in parts:
            said = f"--version) echo 'Some clang version {number}.1.7';;"
            said += f" -print-resource-dir) echo {resources};; *) echo {linker};;"
            self.program(program, f"case $1 in {said} esac")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for variable in (toolchain.EMSCRIPTEN_VARIABLE, wasi.SDK_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(wasi, "_SYSTEM", found.system)
    monkeypatch.setattr(toolchain, "_zig", lambda: None)
    return found


def test_clang_with_all_its_parts(machine: Machine) -> None:
    program = machine.clang()
    found = find_web_toolchain()
    assert found.kind == "clang"
    assert found.command == (
        str(program),
        "--target=wasm32-wasi",
        f"--sysroot={machine.system}",
    )
    assert found.parts["clang"] == "Some clang version 19.1.7"
    assert found.parts["wasm-ld"] == "LLD 19.1.7"
    assert all(tool.found and not tool.remedy for tool in web_toolchain_report())


def test_another_c_library_is_another_toolchain(machine: Machine) -> None:
    machine.clang()
    first = find_web_toolchain()
    wasi._digest.cache_clear()  # a process that goes on doesn't look at the files again
    (machine.system / "lib/wasm32-wasi/libc.a").write_bytes(b"of another version")
    second = find_web_toolchain()
    assert first.parts["libraries"] != second.parts["libraries"]
    assert first.command == second.command


def test_a_complete_compiler_is_better_than_a_newer_one(machine: Machine) -> None:
    machine.clang(21, ("clang", "wasm-ld"))
    complete = machine.clang(18)
    assert find_web_toolchain().command[0] == str(complete)


@pytest.mark.parametrize(
    ("part", "name", "package"),
    [
        ("wasm-ld", "wasm-ld", "lld-19"),
        ("builtins", "compiler-rt for wasm32", "libclang-rt-19-dev-wasm32"),
        ("libc", "wasi-libc", "wasi-libc"),
        ("libc++", "libc++ for wasm32", "libc++-19-dev-wasm32 libc++abi-19-dev-wasm32"),
    ],
)
def test_one_missing_part(machine: Machine, part: str, name: str, package: str) -> None:
    machine.clang(19, tuple(there for there in ALL if there != part))
    with pytest.raises(ToolchainError) as raised:
        find_web_toolchain()
    assert raised.value.where == name
    assert f"apt-get install {package})" in raised.value.remedy
    missing = [tool for tool in web_toolchain_report() if not tool.found]
    assert [tool.name for tool in missing] == [name]
    assert missing[0].remedy == raised.value.remedy


def test_nothing_is_there(machine: Machine) -> None:
    del machine  # no part of it is asked for
    with pytest.raises(ToolchainError, match=r"there is no clang\+\+, which compiles") as raised:
        find_web_toolchain()
    assert raised.value.remedy == (
        "run: pip install ziglang (or on Debian or Ubuntu: apt-get install clang-19 lld-19"
        " libclang-rt-19-dev-wasm32 wasi-libc libc++-19-dev-wasm32 libc++abi-19-dev-wasm32)"
    )


def test_packages_of_the_clang_that_is_there(machine: Machine) -> None:
    machine.clang(18, ("clang", "wasm-ld", "builtins", "libc"))
    with pytest.raises(ToolchainError, match=r"libc\+\+-18-dev-wasm32 libc\+\+abi-18-dev-wasm32"):
        find_web_toolchain()


def test_emscripten_on_the_path_comes_last(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.clang(19, ("clang",))
    emcc = machine.emcc("bin")
    found = find_web_toolchain()
    assert (found.kind, found.command) == ("emscripten", (str(emcc),))
    assert web_toolchain_report()[0].name == "emscripten"
    zig = toolchain.WebToolchain("zig", ("zig", "c++"), {"zig": "1"})
    monkeypatch.setattr(toolchain, "_zig", lambda: zig)
    assert find_web_toolchain() == zig
    machine.clang()
    assert find_web_toolchain().kind == "clang"


def test_a_named_emscripten_comes_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.clang()
    emcc = machine.emcc("emsdk/upstream")
    assert find_web_toolchain().kind == "clang"
    monkeypatch.setenv("EMSCRIPTEN", str(emcc.parent))
    assert find_web_toolchain().command == (str(emcc),)
    monkeypatch.setenv("EMSCRIPTEN", str(emcc.parent.parent))
    with pytest.raises(ToolchainError, match="in which there is no emcc; correct it, or unset it"):
        find_web_toolchain()
    assert not web_toolchain_report()[0].found


def test_a_named_sdk_is_used_or_an_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.emcc("bin")
    machine.clang()
    sdk = machine.sdk()
    monkeypatch.setenv("WASI_SDK_PATH", str(sdk))
    found = find_web_toolchain()
    assert found.command[0] == str(sdk / "bin/clang++")
    assert found.command[2] == f"--sysroot={sdk / 'share/wasi-sysroot'}"
    (sdk / "share/wasi-sysroot/lib/wasm32-wasi/libc++abi.a").unlink()
    with pytest.raises(ToolchainError, match=r"in which there is no libc\+\+ for wasm32"):
        find_web_toolchain()
