"""Where NVIDIA's compiler is looked for, which one is taken, and what is said without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgec.emitters import cuda_toolkit
from edgec.emitters.cuda_toolkit import find_toolkit, install_command, install_parts
from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from pathlib import Path

CUDA_12 = {
    ("nvidia-cuda-nvrtc-cu12", "12.6.85"): [
        "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.6",
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
    ],
    ("nvidia-cuda-runtime-cu12", "12.6.77"): [
        "nvidia/cuda_runtime/include/cuda_fp16.h",
        "nvidia/cuda_runtime/include/mma.h",
    ],
}
CUDA_13 = {
    ("nvidia-cuda-nvrtc", "13.0.88"): [
        "nvidia/cu13/lib/libnvrtc-builtins.alt.so.13.0",
        "nvidia/cu13/lib/libnvrtc-builtins.so.13.0",
        "nvidia/cu13/lib/libnvrtc.alt.so.13",
        "nvidia/cu13/lib/libnvrtc.so.13",
    ],
    ("nvidia-cuda-runtime", "13.0.96"): ["nvidia/cu13/include/cuda_fp16.h"],
}
CRT = {("nvidia-cuda-crt", "13.0.88"): ["nvidia/cu13/include/crt/mma.h"]}
NVCC_12 = {("nvidia-cuda-nvcc-cu12", "12.6.85"): ["nvidia/cuda_nvcc/include/crt/mma.h"]}
NVFATBIN = {("nvidia-nvfatbin-cu12", "12.6.77"): ["nvidia/nvfatbin/lib/libnvfatbin.so.12"]}

Packages = dict[tuple[str, str], list[str]]


def _install(site: Path, packages: Packages) -> None:
    for (name, version), files in packages.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        for file in files:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).touch()


def _toolkit(root: Path, version: str) -> Path:
    major, minor, _ = version.split(".")
    libraries, headers = root / "lib64", root / "include"
    (headers / "crt").mkdir(parents=True)
    libraries.mkdir()
    for file in (headers / "cuda_fp16.h", headers / "crt/mma.h", libraries / "libnvfatbin.so.1"):
        file.touch()
    (libraries / f"libnvrtc.so.{version}").touch()
    (libraries / f"libnvrtc.so.{major}").symlink_to(f"libnvrtc.so.{version}")
    (libraries / f"libnvrtc-builtins.so.{major}.{minor}").touch()
    return root


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where packages are; the machine has no toolkit."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr("sys.path", [str(folder)])
    monkeypatch.setattr(cuda_toolkit, "_roots", lambda: iter(()))
    return folder


def test_packages_of_one_version_are_found(site: Path) -> None:
    _install(site, {**CUDA_12, **CRT, **NVFATBIN})
    found = find_toolkit("12")
    assert found.version == "12.6.85"
    assert found.nvrtc == site / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
    assert found.builtins.name == "libnvrtc-builtins.so.12.6"
    assert found.include == site / "nvidia/cuda_runtime/include"
    assert found.nvfatbin == site / "nvidia/nvfatbin/lib/libnvfatbin.so.12"
    assert found.crt == site / "nvidia/cu13/include/crt"
    assert found.parts == {
        "nvrtc": "12.6.85",
        "headers": "12.6.77",
        "nvfatbin": "12.6.77",
        "crt": "13.0.88",
    }


def test_two_versions_live_in_one_environment(site: Path) -> None:
    _install(site, {**CUDA_12, **CUDA_13, **CRT})
    assert find_toolkit("13").nvrtc == site / "nvidia/cu13/lib/libnvrtc.so.13"
    assert find_toolkit("13").builtins.name == "libnvrtc-builtins.so.13.0"
    assert find_toolkit("12.6").version == "12.6.85"
    assert find_toolkit(None).version == "12.6.85"


def test_headers_of_the_same_version_come_first(site: Path) -> None:
    _install(site, {**CUDA_12, **CRT, **NVCC_12})
    assert find_toolkit("12").parts["crt"] == "12.6.85"


def test_what_is_missing_is_none(site: Path) -> None:
    _install(site, CUDA_12)
    found = find_toolkit("12")
    assert found.crt is None
    assert found.nvfatbin is None


@pytest.mark.parametrize("wanted", [None, "12", "12.4", "12.6.20", "13", "1"])
def test_other_versions_are_not_taken(site: Path, wanted: str | None) -> None:
    if wanted is not None:
        _install(site, {**CUDA_12, **CRT} if wanted != "12" else CUDA_13)
    with pytest.raises(ToolchainError, match="pip install 'nvidia-cuda-nvrtc"):
        find_toolkit(wanted)


def test_a_package_whose_files_are_gone_is_not_taken(site: Path) -> None:
    _install(site, CUDA_12)
    (site / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12").unlink()
    with pytest.raises(ToolchainError):
        find_toolkit("12")


def test_toolkits_in_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _toolkit(tmp_path / "cuda", "12.8.93")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setenv("CUDA_HOME", str(root))
    found = find_toolkit("12.8")
    assert (found.version, found.include, found.crt) == (
        "12.8.93",
        root / "include",
        root / "include/crt",
    )
    assert set(found.parts.values()) == {"12.8.93"}


def test_packages_come_before_folders(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _toolkit(tmp_path / "cuda", "12.8.93")
    monkeypatch.setattr(cuda_toolkit, "_roots", lambda: iter((root,)))
    _install(site, CUDA_12)
    assert find_toolkit("12").version == "12.6.85"
    assert find_toolkit("12.8").version == "12.8.93"


def test_the_command_names_every_package() -> None:
    assert install_command("12").split("'")[1::2] == [
        "nvidia-cuda-nvrtc-cu12==12.6.*",
        "nvidia-cuda-runtime-cu12==12.6.*",
        "nvidia-nvfatbin-cu12==12.6.*",
        "nvidia-cuda-crt==13.0.*",
    ]
    # Only the compiler's package bears the compiler's third number.
    assert install_command("13.0.88").split("'")[1::2] == [
        "nvidia-cuda-nvrtc==13.0.88",
        "nvidia-cuda-runtime==13.0.*",
        "nvidia-nvfatbin==13.0.*",
        "nvidia-cuda-crt==13.0.*",
    ]
    assert install_parts({"nvrtc": "12.6.85", "crt": "12.6.85"}) == (
        "pip install 'nvidia-cuda-nvrtc-cu12==12.6.85' 'nvidia-cuda-nvcc-cu12==12.6.85'"
    )
