"""TVM's runtime for browsers, linked with generated code and loaded as a page loads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgec.emitters.web import toolchain, wasi
from edgec.emitters.web.runtime import web_runtime, web_versions
from edgec.emitters.web.toolchain import find_web_toolchain
from edgec.emitters.web.tree import UNITS
from edgec.errors import BuildError
from edgec.standins.npm import node
from kernels.emitted import emit
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [needs("web toolchain"), needs("node")]

HOST = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"}
WEBGPU = {"kind": "webgpu", "host": HOST, "max_num_threads": 256}
PAGE = Path(__file__).with_name("web_page.mjs")
IMPORTED = '__attribute__((import_module("env"), import_name("alert")))'
# Some of what WebLLM looks for when it loads a library, and something that nobody has.
WANTED = (
    "ffi.SystemLib",
    "ffi.Module.load_from_bytes.webgpu",
    "ffi.Module.load_from_bytes.relax.VMExecutable",
    "tvmjs.array.decode_storage",
    "tvmjs.runtime.ConcatEmbeddings",
    "vm.builtin.paged_attention_kv_cache_create",
    "vm.builtin.sample_top_p_from_logits",
    "vm.builtin.tensor_cache.update",
)


def _library(out: Path) -> Path:
    return emit("webgpu", out, WEBGPU, ("wasm",)).primary


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _library(tmp_path_factory.mktemp("library"))


def _loaded(library: Path) -> dict[str, Any]:
    command = [node(), str(PAGE), str(library), *WANTED, "nothing.of.the.kind"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _check(said: dict[str, Any]) -> None:
    assert said["found"] == {**dict.fromkeys(WANTED, True), "nothing.of.the.kind": False}
    before, after = said["pages"]
    assert after > before
    # The message is printed after memory grew and before the program ends.
    assert "Expected 2 but got 0 arguments" in said["printed"]
    assert said["printed"].count("\n") >= 3, "every line is handed on"
    assert said["grown"] == 1
    assert said["ended"] in {"RuntimeError: unreachable", "Error: exit 1"}


def test_a_page_loads_the_library(library: Path) -> None:
    _check(_loaded(library))


def test_the_library_says_nothing_of_this_machine(library: Path) -> None:
    data = library.read_bytes()
    for name in (str(Path.home()), str(Path(__file__).parents[2]), "site-packages", "/usr/"):
        assert name.encode() not in data, name
    assert not os.access(library, os.X_OK)


def test_the_same_code_gives_the_same_bytes(library: Path, tmp_path: Path) -> None:
    assert _library(tmp_path / "another" / "folder").read_bytes() == library.read_bytes()


def _compiled(folder: Path, code: str) -> Path:
    """An object with a blob, and C++ code with a function ``call``, which is kept."""
    source, out = folder / "code.cc", folder / "code.o"
    blob = "const char __tvm_ffi__library_bin[8] = {};"
    kept = "__attribute__((constructor)) void keep() { call(); }"
    source.write_text(f'extern "C" {{ extern {blob} {code} {kept} }}')
    found = find_web_toolchain()
    command = [*found.command, "-c", str(source), "-o", str(out)]
    subprocess.run(command, check=True, env={**os.environ, **found.environment})
    return out


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("int TVMOfTomorrow()", "model.wasm: the code calls TVMOfTomorrow, which neither"),
        (f"{IMPORTED} int alert()", "model.wasm: the code calls env.alert, which neither"),
    ],
)
def test_what_browsers_lack_is_an_error(function: str, said: str, tmp_path: Path) -> None:
    name = function.rpartition(" ")[2]
    out = tmp_path / "model.wasm"
    code = f"{function}; int call() {{ return {name}; }}"
    with pytest.raises(BuildError, match=said):
        web_runtime(lambda _: None).link([_compiled(tmp_path, code)], out)
    assert not out.exists()


def _without_clang(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(wasi, "_SYSTEM", folder / "no system")
    monkeypatch.delenv(wasi.SDK_VARIABLE, raising=False)
    monkeypatch.delenv(toolchain.EMSCRIPTEN_VARIABLE, raising=False)
    if toolchain.find_web_toolchain().kind != "zig":
        pytest.skip("ziglang is not installed")


def _with_emscripten(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    emcc = shutil.which("emcc")
    if emcc is None:
        pytest.skip("Emscripten is not installed")
    monkeypatch.setenv(toolchain.EMSCRIPTEN_VARIABLE, str(Path(emcc).parent))


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("choose", [_without_clang, _with_emscripten])
def test_other_compilers(
    choose: Callable[[pytest.MonkeyPatch, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = web_versions()
    choose(monkeypatch, tmp_path)
    assert web_versions() != first
    _check(_loaded(_library(tmp_path / "out")))


@pytest.mark.slow
@pytest.mark.nightly
def test_a_runtime_compiled_elsewhere_by_an_sdk_is_the_same(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same clang under another path, in another cache."""
    if find_web_toolchain().kind != "clang":
        pytest.skip("there is no clang to make an SDK of")
    first, versions = web_runtime(lambda _: None), web_versions()
    found = wasi.find_wasi_clang()
    (tmp_path / "sdk/bin").mkdir(parents=True)
    (tmp_path / "sdk/share").mkdir()
    (tmp_path / "sdk/bin/clang++").symlink_to(found.parts[0].path)
    (tmp_path / "sdk/share/wasi-sysroot").symlink_to(found.sysroot)
    monkeypatch.setenv(wasi.SDK_VARIABLE, str(tmp_path / "sdk"))
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "another" / "cache"))
    assert web_versions() != versions
    second = web_runtime(lambda _: None)
    assert second.folder != first.folder
    for unit in UNITS:
        name = f"{Path(unit).stem}.o"
        assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes(), name
    built = _library(tmp_path / "out")
    assert built.read_bytes() == library.read_bytes()
    _check(_loaded(built))
