"""What a library for browsers may ask for and has to offer, and the sources of its runtime."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from edgec.emitters.web import runtime, tree
from edgec.emitters.web.options import EXPORTS, OFFERED, REQUIRED, compile_options, link_options
from edgec.emitters.web.runtime import WebRuntime, check_library, web_runtime
from edgec.emitters.web.toolchain import WebToolchain
from edgec.errors import BuildError, CacheError, EdgecError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ZIG = WebToolchain("zig", ("zig", "c++"), {"zig": "1"})


def _sized(data: bytes) -> bytes:
    """With the number of bytes in front, in groups of seven bits."""
    size, groups = len(data), []
    while True:
        groups.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
        if not size:
            return bytes(groups) + data


def _wasm(imports: Iterable[str], exports: Iterable[str]) -> bytes:
    """A module that imports functions, and exports under all names its memory."""
    asked = [name.partition(".") for name in imports]
    rows = b"".join(_sized(m.encode()) + _sized(n.encode()) + b"\0\0" for m, _, n in asked)
    offered = sorted(exports)
    names = b"".join(_sized(name.encode()) + b"\2\0" for name in offered)
    sections = (
        (1, b"\1\x60\0\0"),
        (2, bytes([len(asked)]) + rows),
        (5, b"\1\0\1"),
        (7, bytes([len(offered)]) + names),
    )
    return b"\0asm\1\0\0\0" + b"".join(bytes([number]) + _sized(data) for number, data in sections)


def test_what_javascript_offers_may_be_imported() -> None:
    check_library(_wasm(OFFERED, REQUIRED), "model.wasm")


@pytest.mark.parametrize("name", ["env.puts", "wasi_snapshot_preview1.path_open", "a.fd_write"])
def test_nothing_else_may_be_imported(name: str) -> None:
    with pytest.raises(BuildError, match=f"model.wasm: the code calls {re.escape(name)}, which"):
        check_library(_wasm([*OFFERED, name], REQUIRED), "model.wasm")


@pytest.mark.parametrize("name", ["memory", "_initialize", "__tvm_ffi__library_bin", *EXPORTS])
def test_what_javascript_calls_has_to_be_there(name: str) -> None:
    with pytest.raises(BuildError, match=f"doesn't export {name}, which"):
        check_library(_wasm([], REQUIRED - {name}), "model.wasm")


def test_something_else_than_webassembly() -> None:
    with pytest.raises(VerificationError):
        check_library(b"\x7fELF", "model.wasm")


def test_what_a_linker_says_becomes_one_sentence() -> None:
    said = "wasm-ld: error: lib0.o: undefined symbol: TVMNew\nwasm-ld: error: undefined symbol: a\n"
    assert "the code calls TVMNew, a, which neither" in str(runtime._not_linked(said, "model.wasm"))
    assert "linking failed: no space" in str(runtime._not_linked("no space\n", "model.wasm"))


@pytest.fixture
def fake_tvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TVM with a few of the runtime's files, of which one header is among ours too."""
    folder = tmp_path / "site"
    for name in (
        "tvm/include/tvm/support/io.h",
        "tvm/src/runtime/vm/vm.cc",
        "tvm/src/runtime/vm/__pycache__/vm.pyc",
        "tvm/src/runtime/rpc/rpc_module.cc",
        "tvm/web/emcc/wasm_runtime.cc",
        "tvm_ffi/include/tvm/ffi/any.h",
        "tvm_ffi/src/ffi/testing/testing.cc",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"// {name}")
    monkeypatch.setattr(tree, "package_folder", lambda name: folder / name)
    tree.sources_digest.cache_clear()
    yield folder
    tree.sources_digest.cache_clear()


def test_the_sources_lie_as_in_tvm(fake_tvm: Path, tmp_path: Path) -> None:
    out = tmp_path / "tree"
    tree.make_tree(out)
    assert (out / "src/runtime/vm/vm.cc").read_text() == "// tvm/src/runtime/vm/vm.cc"
    assert (out / "3rdparty/tvm-ffi/include/tvm/ffi/any.h").exists()
    assert (out / "3rdparty/compiler-rt/builtin_fp16.h").exists(), "what the wheel lacks"
    # A header that the wheel has is the wheel's.
    assert (out / "include/tvm/support/io.h").read_text() == "// tvm/include/tvm/support/io.h"
    assert "Serializer" in (out / "include/tvm/support/serializer.h").read_text()
    # What a chat doesn't need stays out.
    assert not (out / "src/runtime/rpc/rpc_module.cc").read_text()
    assert not list(out.rglob("*.pyc"))
    assert {path.name for path in (out / "libcxx").iterdir()} == {"fstream", "mutex", "thread"}
    del fake_tvm


def test_the_digest_sees_every_source(fake_tvm: Path) -> None:
    first = tree.sources_digest()
    tree.sources_digest.cache_clear()
    (fake_tvm / "tvm/src/runtime/vm/vm.cc").write_text("// changed")
    assert tree.sources_digest() != first


def test_a_tvm_without_sources(fake_tvm: Path, tmp_path: Path) -> None:
    (fake_tvm / "tvm/web/emcc/wasm_runtime.cc").unlink()
    (fake_tvm / "tvm/web/emcc").rmdir()
    with pytest.raises(EdgecError, match="tvm comes without the sources of its runtime"):
        tree.make_tree(tmp_path / "tree")


class Compiler:
    """Stands for the compiler: writes the names of what it is given."""

    def __init__(self, *, fails: str = "") -> None:
        self.calls: list[list[str]] = []
        self.fails = fails

    def __call__(self, _toolchain: object, command: list[str], folder: Path) -> SimpleNamespace:
        self.calls.append(command)
        if self.fails and self.fails in command:
            return SimpleNamespace(returncode=1, stderr="note: a\nx.h:1: error: no such type\n")
        out = folder / command[command.index("-o") + 1]
        out.write_bytes(_wasm([], REQUIRED))
        return SimpleNamespace(returncode=0, stderr="")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_tvm: Path) -> Compiler:
    del fake_tvm
    found = Compiler()
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "find_web_toolchain", lambda: ZIG)
    monkeypatch.setattr(runtime, "_run", found)
    return found


def test_the_runtime_is_compiled_once(compiler: Compiler) -> None:
    notes: list[str] = []
    first = web_runtime(notes.append)
    assert notes == ["compiling TVM's runtime for browsers, which is done once"]
    assert len(compiler.calls) == len(tree.UNITS)
    assert web_runtime(notes.append) == first
    assert len(notes) == 1
    assert len(compiler.calls) == len(tree.UNITS)


def test_another_version_is_another_runtime(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = web_runtime(lambda _: None)
    monkeypatch.setattr(
        runtime, "find_web_toolchain", lambda: WebToolchain("zig", ZIG.command, {"zig": "2"})
    )
    assert web_runtime(lambda _: None).folder != first.folder
    # Where it is installed changes nothing.
    moved = WebToolchain("zig", ("elsewhere/zig", "c++"), {"zig": "1"})
    monkeypatch.setattr(runtime, "find_web_toolchain", lambda: moved)
    assert web_runtime(lambda _: None).folder == first.folder
    assert len(compiler.calls) == 2 * len(tree.UNITS)


def test_a_runtime_that_does_not_compile_is_not_kept(compiler: Compiler, tmp_path: Path) -> None:
    compiler.fails = tree.UNITS[2]
    with pytest.raises(BuildError, match=r"does not compile: x\.h:1: error: no such type; check"):
        web_runtime(lambda _: None)
    assert not [path for path in (tmp_path / "cache").rglob("*.o") if path.is_file()]
    compiler.fails = ""
    web_runtime(lambda _: None)


def test_a_cache_that_cannot_be_written(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del compiler
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match="the runtime for browsers can't be kept there"):
        web_runtime(lambda _: None)


def test_a_failed_link_leaves_what_was_there(compiler: Compiler, tmp_path: Path) -> None:
    out = tmp_path / "model.wasm"
    built = web_runtime(lambda _: None)
    built.link([tmp_path / "lib0.o"], out)
    good = out.read_bytes()
    compiler.fails = str(tmp_path / "bad.o")
    with pytest.raises(BuildError, match="linking failed"):
        built.link([tmp_path / "bad.o"], out)
    assert out.read_bytes() == good
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "model.wasm", "site"]


def test_a_compiler_that_is_gone(tmp_path: Path) -> None:
    gone = WebRuntime(tmp_path, WebToolchain("zig", (str(tmp_path / "none"),), {}))
    with pytest.raises(BuildError, match="could not be run"):
        gone.link([], tmp_path / "model.wasm")


def test_all_linkers_are_told_the_same() -> None:
    for kind in ("clang", "zig", "emscripten"):
        told = " ".join(link_options(kind))
        for name in (*EXPORTS, "__tvm_ffi__library_bin", "167772160", "4294901760", "5242880"):
            assert name in told, (kind, name)
        assert "-Oz" in compile_options(kind)
