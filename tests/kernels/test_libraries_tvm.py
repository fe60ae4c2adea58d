"""Libraries as TVM itself writes them, for devices that aren't here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgec.ir.load import load_tvm
from edgec.libraries.ar import build_archive
from edgec.libraries.blob import Blob
from edgec.libraries.bytecode import bytecode_functions
from edgec.libraries.facts import facts
from edgec.libraries.members import Member
from edgec.libraries.open import open_library
from edgec.libraries.tarball import write_tar

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.libraries.open import LibraryFile

load_tvm()

import tvm  # noqa: E402
from tvm import relax  # noqa: E402
from tvm.support import tar  # noqa: E402

pytestmark = pytest.mark.slow

ANDROID = {"kind": "llvm", "mtriple": "aarch64-linux-android24"}
IPHONE = {"kind": "llvm", "mtriple": "arm64-apple-ios16.4"}
DEVICES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "opencl": ({"kind": "opencl"}, ANDROID),
    "metal": ({"kind": "metal"}, IPHONE),
    "cuda": ({"kind": "cuda", "arch": "sm_87"}, {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}),
    "cpu": ({"kind": "llvm", "mtriple": "x86_64-linux-gnu"}, None),
}


def export(device: str, path: Path, prefix: str) -> LibraryFile:
    """Compile a model of two kernels for a device, and open what TVM made of it."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((64,), "float32"))
    with builder.function("main", [x]):
        doubled = builder.emit(relax.op.add(x, x))
        builder.emit_func_output(builder.emit(relax.op.nn.softmax(doubled)))
    module = builder.get()
    if prefix:
        module = module.with_attr("system_lib_prefix", prefix)
    target, host = DEVICES[device]
    built = tvm.compile(module, tvm.target.Target(target, host=host))
    built.mod.export_library(str(path), fcompile=tar.tar)
    return open_library(path)


@pytest.mark.parametrize("prefix", ["", "tiny_"])
@pytest.mark.parametrize("device", DEVICES)
def test_libraries_of_tvm_are_read(device: str, prefix: str, tmp_path: Path) -> None:
    library = export(device, tmp_path / "model.tar", prefix)
    assert (library.form, library.prefix) == ("tar", prefix)
    assert library.machine == ("x86_64" if device == "cpu" else "aarch64")
    assert library.object_format == ("macho" if device == "metal" else "elf")
    assert library.host_functions == ("add", "softmax")
    functions = {f.name: f.kind for f in bytecode_functions(library.bytecode)}
    assert functions["main"] == "vm"
    assert functions[f"{prefix}add"] == "packed"
    assert Blob.parse(library.blob.to_bytes()) == library.blob
    found = facts(library)
    assert found["builtins"]
    assert all(name.startswith("vm.builtin.") for name in found["builtins"])
    assert "TVMFFIErrorSetRaisedFromCStrParts" in found["undefined"]
    if device == "metal":
        assert (found["platform"], found["minimum_version"]) == ("ios", "16.4")
    if device == "cpu":
        assert library.device is None
        return
    assert library.device is not None
    assert library.device.kind == device
    assert library.device.to_bytes() == library.blob.of_kind(device)[0].data
    name = f"{prefix}add_kernel"
    kernel = library.device.functions[name]
    assert kernel.arg_types == ("handle",) * 3
    assert kernel.launch_tags == ("blockIdx.x", "threadIdx.x")
    assert kernel.name.encode() in library.device.code_of(name)


def test_tvm_loads_what_its_own_reader_would(tmp_path: Path) -> None:
    """TVM's runtime and this reader agree on the modules of a library and their order."""
    library = export("cpu", tmp_path / "model.tar", "")
    (tmp_path / "again.tar").write_bytes(
        write_tar([Member(item.name, item.data) for item in library.objects])
    )
    loaded = tvm.runtime.load_module(str(tmp_path / "again.tar"))
    assert [loaded.kind, *(module.kind for module in loaded.imports)] == [
        "relax.VMExecutable",
        "library",
    ]
    assert [module.kind for module in library.blob.modules] == ["relax.VMExecutable", "_lib"]


@pytest.mark.parametrize("device", ["opencl", "metal"])
def test_archives_of_two_libraries(device: str, tmp_path: Path) -> None:
    """What an app links: the objects of several models in one archive."""
    members = []
    for prefix in ("one_", "two_"):
        library = export(device, tmp_path / f"{prefix}.tar", prefix)
        members += [Member(item.name, item.data) for item in library.objects]
    path = tmp_path / "libmodel.a"
    path.write_bytes(build_archive(members, "darwin" if device == "metal" else "gnu"))
    for prefix in ("one_", "two_"):
        library = open_library(path, prefix)
        assert library.host_functions == ("add", "softmax")
        assert library.device is not None
        assert all(name.startswith(prefix) for name in library.device.functions)
