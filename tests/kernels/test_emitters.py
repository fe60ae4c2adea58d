"""Libraries for every platform: what is in their files, and that they load and compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import emitted
import numpy as np
import pytest
import tvm
import tvm_ffi
from emitted import ANDROID, ARM, BOTH, GPU, IOS, X86
from tvm import relax, tirx
from tvm.script import tirx as T  # noqa: N812

from edgec.emitters import cuda, ios, machine_code
from edgec.emitters.cpu import emit as emit_cpu
from edgec.emitters.cuda_binary import DeviceBinary
from edgec.emitters.cuda_record import CudaRecord
from edgec.emitters.spec import LibrarySpec
from edgec.errors import BuildError, EdgecError, UsageError
from edgec.libraries.device import DeviceModule
from edgec.libraries.elf import Elf
from edgec.libraries.macho import MachO
from edgec.libraries.open import open_library
from edgec.passes.order_shape_stores import OrderShapeStores
from edgec.progress import Silent
from standin_tools import needs

OPENCL = {"kind": "opencl", **GPU, "host": ANDROID}
CUDA = {"kind": "cuda", "arch": "sm_87", **GPU, "thread_warp_size": 32, "host": ARM}
METAL = {"kind": "metal", **GPU, "host": IOS}
# Seven roundings of float32 in sums of eight, then exp, which doubles relative errors at |x| = 2.
CLOSE = {"rtol": 3e-6, "atol": 0}
native = pytest.mark.skipif(os.uname().machine != "x86_64", reason="this machine runs no x86-64")


def _elf(path: Path) -> Elf:
    return Elf.parse(path.read_bytes(), path.name)


def _functions(path: Path) -> set[str]:
    return set(open_library(path).host_functions)


# Shared libraries


@native
@pytest.mark.parametrize("forms", [("shared",), BOTH])
def test_a_shared_library_computes(tmp_path: Path, forms: tuple[str, ...]) -> None:
    out = emitted.emit("cpu", tmp_path, X86, forms)
    found, right = emitted.run(tvm.runtime.load_module(str(out.primary)))
    np.testing.assert_allclose(found, right, **CLOSE)


@native
def test_a_shared_library_registers_nothing(tmp_path: Path) -> None:
    """Twice the same registration, from two copies, would warn; and pointers would dangle."""
    out = emitted.emit("cpu", tmp_path, X86, BOTH)
    module = tvm.runtime.load_module(str(out.primary))
    system = tvm.get_global_func("ffi.SystemLib")(f"{emitted.MODEL_LIB}_")
    assert module.implements_function("matmul", query_imports=True)
    assert not system.implements_function("matmul", query_imports=True)


@native
def test_objects_linked_into_a_program_compute(tmp_path: Path) -> None:
    """Only a child process can show it: what registers can't be taken back."""
    out = emitted.emit("cpu", tmp_path, X86, BOTH)
    archive = tmp_path / "libmodel.a"
    assert archive in out.files
    whole = ["-Wl,--whole-archive", str(archive), "-Wl,--no-whole-archive", "-lm"]
    subprocess.run(["cc", "-shared", "-o", "app.so", *whole], cwd=tmp_path, check=True)
    code = f"""
import ctypes, emitted, numpy, tvm
ctypes.CDLL({str(tmp_path / "app.so")!r}, ctypes.RTLD_GLOBAL)
system = tvm.get_global_func("ffi.SystemLib")("{emitted.MODEL_LIB}_")
found, right = emitted.run(system)
numpy.testing.assert_allclose(found, right, rtol=3e-6, atol=0)
print("computed")
"""
    command, folder = [sys.executable, "-c", code], Path(__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("computed\n"), done.stderr


@needs("lld")
def test_all_forms_hold_the_same_code(tmp_path: Path) -> None:
    out = emitted.emit("android", tmp_path, OPENCL, BOTH)
    assert [path.name for path in out.files] == ["model.so", "model.tar", "libmodel.a"]
    shared, tar, archive = (open_library(path) for path in out.files)
    assert shared.prefix == ""
    assert tar.prefix == archive.prefix == f"{emitted.MODEL_LIB}_"
    assert shared.host_functions == tar.host_functions == archive.host_functions
    assert {"matmul", "tir_exp"} <= set(shared.host_functions)
    assert shared.blob == tar.blob == archive.blob
    assert shared.device is not None
    assert shared.device.format == "cl"
    assert [item.data for item in tar.objects] == [item.data for item in archive.objects]
    assert {item.name for item in tar.objects} == {"lib0.o", f"{emitted.MODEL_LIB}_devc.o"}


@needs("lld")
def test_android_can_load_the_shared_library(tmp_path: Path) -> None:
    file = _elf(emitted.emit("android", tmp_path, OPENCL, BOTH).primary)
    assert file.machine == "aarch64"
    assert file.load_alignment == 16384
    assert set(file.needed) == {"libc.so", "libm.so"}
    assert file.soname == f"lib{emitted.MODEL_LIB}.so"
    assert not file.writes_text
    assert not file.executable_stack
    assert not file.search_paths
    assert all(name.startswith(("TVMFFI", "TVMBackend")) for name in file.undefined)
    assert not any(emitted.MODEL_LIB in name for name in file.exported)


PROGRAM = """\
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int count) {
  for (int i = 0; i < count; ++i) printf("%s", parts[i]);
  printf("\\n");
  return -1;
}
int main(int count, char **names) {
  void *library = dlopen(names[1], RTLD_NOW);
  if (!library) { printf("%s\\n", dlerror()); return 1; }
  if (!dlsym(library, "__tvm_ffi__library_bin")) return 2;
  int (*kernel)(void *, void *, int, void *) = dlsym(library, "__tvm_ffi_matmul");
  return kernel(0, 0, 0, 0) == -1 ? 0 : 3;
}
"""


@needs("lld")
@needs("qemu-aarch64")
@needs("aarch64-linux-gnu-g++")
def test_an_arm_library_loads_and_runs(tmp_path: Path) -> None:
    """With all symbols bound: a kernel says that it was called with too few arguments."""
    library = emitted.emit("linux", tmp_path, ARM, page_bytes=65536).primary
    assert set(_elf(library).needed) == {"libc.so.6", "libm.so.6"}
    assert _elf(library).load_alignment == 65536
    (tmp_path / "program.c").write_text(PROGRAM)
    compiler = ["aarch64-linux-gnu-g++", "-x", "c", "-rdynamic", "program.c", "-o", "program"]
    subprocess.run([*compiler, "-ldl"], cwd=tmp_path, check=True)
    command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "./program", str(library)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "arguments" in done.stdout


@needs("lld")
def test_a_driver_links_for_android_if_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = tmp_path / "arguments"
    compiler = tmp_path / "clang"
    compiler.write_text(f'#!/bin/sh\necho "$@" > {arguments}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("TVM_NDK_CC", str(compiler))
    emitted.emit("android", tmp_path / "out", ANDROID)
    assert {"-shared", "-Wl,-zmax-page-size=16384", "lib0.o"} <= set(arguments.read_text().split())


# iOS


def test_ios_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ios, "metal_compiler", lambda: None)
    out = emitted.emit("ios", tmp_path, METAL, ("system",))
    assert [path.name for path in out.files] == ["model.tar", "libmodel.a"]
    tar, archive = (open_library(path) for path in out.files)
    assert archive.form == "macho-archive"
    for item in (*tar.objects, *archive.objects):
        assert isinstance(item.image, MachO)
        assert (item.image.platform, item.image.minimum_version) == ("ios", "16.0")
    assert tar.device is not None
    assert tar.device.format == "metal"
    assert all(b"kernel void" in code for code in tar.device.code.values())


def test_xcode_compiles_the_kernels_and_the_text_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "metal"
    # Options and the text, as far as a stand-in for Xcode can tell that it was asked rightly.
    compiler.write_text('#!/bin/sh\n{ echo "$2"; cat "$5"; } > "$4"\n')
    compiler.chmod(0o755)
    monkeypatch.setattr(ios, "metal_compiler", lambda: (str(compiler),))
    out = emitted.emit("ios", tmp_path, METAL, ("system",))
    device = open_library(out.primary).device
    assert device is not None
    assert device.format == "metallib"
    text = DeviceModule.parse("metal", (tmp_path / "kernels.metal").read_bytes())
    assert out.files[-1].name == "kernels.metal"
    assert text.functions == device.functions
    assert {name: b"-mios-version-min=16.0\n" + code for name, code in text.code.items()} == dict(
        device.code
    )


def test_a_kernel_that_xcode_refuses(tmp_path: Path) -> None:
    compiler = tmp_path / "metal"
    compiler.write_text("#!/bin/sh\necho 'error: no such type' >&2; exit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(BuildError, match="does not compile: error: no such type"):
        ios.metallib(b"", (str(compiler),), "16.0")


@pytest.mark.parametrize(
    ("triple", "forms", "where"),
    [
        ("arm64-apple-ios", ("system",), "mtriple"),
        ("arm64-apple-ios16.0", BOTH, "forms"),
    ],
)
def test_what_no_ios_library_can_be(
    tmp_path: Path, triple: str, forms: tuple[str, ...], where: str
) -> None:
    target = {**METAL, "host": {**IOS, "mtriple": triple}}
    with pytest.raises(UsageError) as error:
        emitted.emit("ios", tmp_path, target, forms)
    assert where in error.value.where


# CUDA


@needs("lld")
def test_cuda_kernels_become_machine_code_and_the_text_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def compile_cuda(source: str, *options: object) -> DeviceBinary:
        asked.append((source, *options[:2]))
        return DeviceBinary("fatbin", b"machine code", ("sm_87",), {"nvrtc": "12.6.85"}, ())

    monkeypatch.setattr(cuda, "compile_cuda", compile_cuda)
    monkeypatch.setattr(cuda, "find_toolkit", lambda _version: None)
    fields = {"cuda_architectures": ("sm_87",), "cuda_toolkit": "12"}
    out = emitted.emit("cuda", tmp_path, CUDA, **fields)
    device = open_library(out.primary).device
    assert device is not None
    assert (device.format, device.code[""]) == ("fatbin", b"machine code")
    text = DeviceModule.parse("cuda", (tmp_path / "kernels.cuda").read_bytes())
    assert text.functions == device.functions
    assert "__global__" in text.code[""].decode()
    record = CudaRecord.parse((tmp_path / "kernels.cuda.json").read_text(), "record")
    record.check(text, device, "library")
    assert [path.name for path in out.files] == ["model.so", "kernels.cuda", "kernels.cuda.json"]
    assert asked == [(text.code[""].decode(), ("sm_87",), "12")]


@needs("lld")
def test_without_gpus_cuda_kernels_stay_text(tmp_path: Path) -> None:
    out = emitted.emit("cuda", tmp_path, CUDA)
    device = open_library(out.primary).device
    assert device is not None
    assert device.format == "cuda"
    assert [path.name for path in out.files] == ["model.so"]


@needs("lld")
def test_a_device_of_this_machine_has_no_say(tmp_path: Path) -> None:
    """With its runtime TVM would compile the kernels for the device that is here."""
    name = "ffi.Module.create.opencl"

    def create(*_options: object) -> None:
        raise AssertionError("the device's runtime was asked")

    tvm_ffi.register_global_func(name, create)
    try:
        with_device = emitted.emit("android", tmp_path / "a", OPENCL).primary.read_bytes()
        assert tvm.get_global_func(name, allow_missing=True) is not None
    finally:
        tvm_ffi.registry.remove_global_func(name)
    assert emitted.emit("android", tmp_path / "b", OPENCL).primary.read_bytes() == with_device


# Errors


def test_functions_that_devices_lack_are_refused(tmp_path: Path) -> None:
    @T.prim_func(s_tir=True)
    def stranger(a: T.Buffer((1,), "float32")) -> None:
        T.func_attr({"global_symbol": "stranger"})
        a[0] = T.call_pure_extern("float32", "no_such_function", a[0])

    target = tvm.target.Target(X86)
    spec = LibrarySpec("m_q0f32", ("shared",), 4096)
    with pytest.raises(BuildError, match="no_such_function"):
        emit_cpu(tvm.IRModule({"stranger": stranger}), target, tmp_path, spec, Silent())


@needs("lld")
def test_a_linker_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linker = tmp_path / "ld.lld"
    linker.write_text("#!/bin/sh\necho 'disk full' >&2; exit 1\n")
    linker.chmod(0o755)
    monkeypatch.setenv("LLD", str(linker))
    with pytest.raises(EdgecError, match="linking failed: disk full"):
        emitted.emit("linux", tmp_path / "out", ARM)


# The same bytes everywhere

BUILD = """
import sys
from pathlib import Path
import emitted
emitted.emit("android", Path(sys.argv[1]), {target}, emitted.BOTH)
"""


@needs("lld")
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", BUILD.format(target=OPENCL), str(tmp_path / seed)],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
    for path in sorted((tmp_path / "1").iterdir()):
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes(), path.name


def _stores(function: tirx.PrimFunc) -> list[int]:
    return [int(store.indices[0]) for store in function.body.seq]


def _shapes() -> tvm.IRModule:
    """Callers of three functions, of which two compute the same, listed in another order."""

    @T.prim_func(s_tir=True, private=True)
    def other(heap: T.Buffer((4,), "int64")) -> None:
        T.func_attr({"tirx.is_host_func": True})
        heap[1] = heap[0] * T.int64(2)

    @T.prim_func(s_tir=True, private=True)
    def one(heap: T.Buffer((4,), "int64")) -> None:
        T.func_attr({"tirx.is_host_func": True})
        heap[3] = heap[0] * T.int64(3)
        heap[1] = heap[0] * T.int64(5)
        heap[2] = heap[0] + T.int64(7)

    same = one.with_body(tirx.SeqStmt([one.body.seq[index] for index in (1, 0, 2)]))
    builder = relax.BlockBuilder()
    for name, function in (("third", other), ("first", same), ("second", one)):
        called = builder.add_func(function, "shape_func")
        heap = relax.Var("heap", relax.TensorType((4,), "int64"))
        with builder.function(name, [heap], {"relax.force_pure": True}):
            builder.emit(relax.Call(called, [heap]))
            builder.emit_func_output(relax.Tuple([]))
    return builder.get()


def _called(function: relax.Function) -> str:
    (binding,) = function.body.blocks[0].bindings
    return str(binding.value.op.name_hint)


def test_shapes_are_computed_in_the_order_of_their_slots() -> None:
    shapes = _shapes()
    given, ordered = shapes["shape_func2"], OrderShapeStores()(shapes)["shape_func"]
    assert _stores(given) == [3, 1, 2]
    assert _stores(ordered) == [1, 2, 3]
    assert [str(store.value) for store in ordered.body.seq] == [
        str(given.body.seq[index].value) for index in (1, 2, 0)
    ]
    assert ordered.attrs["tirx.is_host_func"]


def test_equal_shapes_are_computed_by_one_function() -> None:
    """Whether they were listed alike depends on addresses; the names must not."""
    ordered = OrderShapeStores()(_shapes())
    names = sorted(var.name_hint for var in ordered.get_global_vars())
    assert names == ["first", "second", "shape_func", "shape_func1", "third"]
    called = {name: _called(ordered[name]) for name in ("first", "second", "third")}
    assert called == {"first": "shape_func", "second": "shape_func", "third": "shape_func1"}


def test_shapes_that_depend_on_each_other_are_not_reordered() -> None:
    @T.prim_func(s_tir=True)
    def shape_func(heap: T.Buffer((4,), "int64")) -> None:
        T.func_attr({"tirx.is_host_func": True})
        heap[3] = heap[0] * T.int64(3)
        heap[1] = heap[3] * T.int64(5)

    with pytest.raises(Exception, match="isn't there yet"):
        OrderShapeStores()(tvm.IRModule({"shape_func": shape_func}))


def test_the_blob_is_packed_as_before_afterwards(tmp_path: Path) -> None:
    pack = tvm.get_global_func("codegen.codegen_blob")
    target = tvm.target.Target(X86)

    def refuse(_blob: object) -> None:
        raise ValueError("no")

    with pytest.raises(Exception, match="no"):
        machine_code.generate(emitted.lowered(target), target, edit=refuse)  # type: ignore[arg-type]
    assert tvm.get_global_func("codegen.codegen_blob").same_as(pack)
