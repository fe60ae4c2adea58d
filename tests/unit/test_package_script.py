"""The script that builds MLC's Android binding, with tools that only note what they are asked."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from package_fakes import phone_artifact

from edgec.packaging.package import plan_package

if TYPE_CHECKING:
    from pathlib import Path

CMAKE = """#!/bin/sh
echo "cmake $*" >>"$LOG"
case "$*" in
*install*)
    mkdir -p "$2/output/arm64-v8a"
    echo so >"$2/output/arm64-v8a/libtvm4j_runtime_packed.so"
    ;;
esac
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A package, a checkout of mlc-llm, an NDK, and tools."""
    artifact = phone_artifact(tmp_path / "artifact")
    package = plan_package([artifact], urls={}, bundle=False, delivery=None)
    package.write(tmp_path / "a package")
    mlc = tmp_path / "mlc llm"
    for name in (
        "android/mlc4j/CMakeLists.txt",
        "android/mlc4j/build.gradle",
        "android/mlc4j/src/main/java/MLCEngine.kt",
        "3rdparty/tvm/CMakeLists.txt",
        "ndk/build/cmake/android.toolchain.cmake",
    ):
        (mlc / name).parent.mkdir(parents=True, exist_ok=True)
        (mlc / name).write_text(name)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (
        ("cmake", CMAKE),
        ("rustup", '#!/bin/sh\necho "rustup $*" >>"$LOG"\n'),
        ("javac", "#!/bin/sh\n"),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return tmp_path


def run(place: Path, *args: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{place / 'tools'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "MLC_LLM_SOURCE_DIR": str(place / "mlc llm"),
        "ANDROID_NDK": str(place / "mlc llm/ndk"),
        "LOG": str(place / "log"),
        **changes,
    }
    script = place / "a package/build-mlc4j.sh"
    return subprocess.run(
        ["sh", str(script), *args],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_module_is_made_of_mlcs_sources_and_what_cmake_built(place: Path) -> None:
    for _ in range(2):  # again into the same folder
        done = run(place, "my app/mlc")
        assert done.returncode == 0, done.stderr
    module = place / "my app/mlc/mlc4j"
    assert done.stdout.splitlines()[-1] == str(module)
    assert sorted(
        path.relative_to(module).as_posix() for path in module.rglob("*") if path.is_file()
    ) == [
        "build.gradle",
        "output/arm64-v8a/libtvm4j_runtime_packed.so",
        "src/main/java/MLCEngine.kt",
    ]
    # Where mlc4j's CMakeLists.txt looks for the models.
    archive = place / "my app/mlc/build/lib/libmodel_android.a"
    assert archive.read_bytes() == (place / "a package/lib/libmodel_android.a").read_bytes()
    calls = (place / "log").read_text().splitlines()
    assert calls[0] == "rustup target add aarch64-linux-android"
    assert f"-S {place}/mlc llm/android/mlc4j -B {place}/my app/mlc/build" in calls[1]
    for flag in ("ANDROID_ABI=arm64-v8a", "USE_OPENCL=ON", "ANDROID_STL=c++_static"):
        assert f"-D{flag}" in calls[1]
    assert "--target tvm4j_runtime_packed" in calls[2]
    assert "--target install" in calls[3]


@pytest.mark.parametrize(
    ("args", "changes", "message"),
    [
        ((), {}, "name the folder to build in"),
        (("mlc",), {"MLC_LLM_SOURCE_DIR": ""}, "set MLC_LLM_SOURCE_DIR to"),
        (("mlc",), {"ANDROID_NDK": ""}, "set ANDROID_NDK to"),
        (("mlc",), {"MLC_LLM_SOURCE_DIR": "tools"}, "is not a checkout of mlc-llm"),
        (("mlc",), {"ANDROID_NDK": "/nowhere"}, "install the NDK"),
        (("a package/mlc",), {}, "build outside of the package"),
    ],
)
def test_what_is_missing_is_said(
    place: Path, args: tuple[str, ...], changes: dict[str, str], message: str
) -> None:
    done = run(place, *args, **changes)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (place / "log").exists()


def test_a_checkout_without_submodules_is_told_from_a_whole_one(place: Path) -> None:
    (place / "mlc llm/3rdparty/tvm/CMakeLists.txt").unlink()
    done = run(place, "mlc")
    assert done.returncode == 2
    assert "git submodule update --init --recursive" in done.stderr
