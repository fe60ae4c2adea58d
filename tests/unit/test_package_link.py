"""Linkers take every model of a package into an app, as the apps' build files call them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from package_fakes import phone_artifact

from edgec.errors import ToolchainError
from edgec.libraries.objects import parse_image
from edgec.packaging.package import plan_package
from edgec.standins import toolbox

if TYPE_CHECKING:
    from pathlib import Path

BLOBS = ["other_q4f16_1___tvm_ffi__library_bin", "toy_q4f16_1___tvm_ffi__library_bin"]
TARGET = "arm64-apple-ios16.0"


@pytest.fixture(scope="module")
def tools() -> dict[str, str]:
    """clang, and LLVM's linkers for ELF and Mach-O, which lie beside each other."""
    try:
        clang, elf = toolbox.clang(), toolbox.lld()
    except ToolchainError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    folder, name = os.path.split(elf)
    return {
        "clang": clang,
        "elf": elf,
        "macho": os.path.join(folder, name.replace("ld.lld", "ld64.lld")),
    }


def package(root: Path, *, ios: bool) -> Path:
    kind = {"ios": True, "kernels": "metal", "target": "ios-metal"} if ios else {}
    artifacts = [phone_artifact(root / name, name, **kind) for name in ("toy", "other")]
    made = plan_package(artifacts, urls={}, bundle=False, delivery=None)
    made.write(root / "package")
    return root / "package"


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True)


def names(path: Path) -> list[str]:
    image = parse_image(path.read_bytes(), str(path))
    return [name for name in image.exported if name in BLOBS]


def test_android_takes_the_archive_whole(tmp_path: Path, tools: dict[str, str]) -> None:
    """As mlc4j's CMakeLists.txt does for its shared library."""
    archive = package(tmp_path, ios=False) / "lib/libmodel_android.a"
    for words, found in (([], []), (["--whole-archive"], BLOBS)):
        shared = tmp_path / "libtvm4j_runtime_packed.so"
        run(tools["elf"], "-shared", "-z", "max-page-size=16384", *words, archive, "-o", shared)
        assert names(shared) == found


@pytest.mark.parametrize("all_load", [False, True])
def test_ios_takes_all_objects_with_the_anchor_or_with_all_load(
    tmp_path: Path, tools: dict[str, str], *, all_load: bool
) -> None:
    """The anchor survives the removal of dead code, which release builds do."""
    root = package(tmp_path, ios=True) / "EdgecModels"
    archive = root / "ModelIPhone.xcframework/ios-arm64/libmodel_iphone.a"
    source = root / "Sources/EdgecModelsAnchor"
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    compiler = [tools["clang"], "-target", TARGET, "-Wall", "-Wextra", "-Werror", "-c"]
    run(*compiler, tmp_path / "main.c", "-o", tmp_path / "main.o")
    run(*compiler, source / "anchor.c", "-I", source / "include", "-o", tmp_path / "anchor.o")
    flags = "-arch arm64 -platform_version ios 16.0 16.0 -undefined dynamic_lookup -e _main"
    linker = [tools["macho"], *flags.split(), tmp_path / "main.o", archive]
    app = tmp_path / "app"
    run(*linker, "-dead_strip", "-o", app)
    assert names(app) == []
    run(
        *linker, *(["-all_load"] if all_load else ["-dead_strip", tmp_path / "anchor.o"]), "-o", app
    )
    assert names(app) == BLOBS
