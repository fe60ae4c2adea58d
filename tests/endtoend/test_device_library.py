"""A library for a phone, from recipe to verified artifact, as a user would do it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgec.artifacts.artifact import open_artifact
from endtoend.command import edgec
from endtoend.small_model import SMALL, write_small_model
from standin_tools import needs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    *(needs(name) for name in ("clang++", "cxx", "lld", "qemu-aarch64", "aarch64-linux-gnu-g++")),
]

TARGET = "android-adreno"
FOLDER = f"artifacts/{SMALL}/{TARGET}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small model was built for a phone, without a text."""
    folder = tmp_path_factory.mktemp("phone")
    write_small_model(folder)
    edgec(folder, "build", f"{SMALL}.yaml", "-t", TARGET, "-s", "quality=null")
    return folder


def test_every_kernel_was_checked_alone(built: Path) -> None:
    artifact = open_artifact(built / FOLDER)
    kernels = artifact.report["kernels"]
    named = kernels["checked"].keys() | kernels["unchecked"].keys() | set(kernels["not_called"])
    assert named == artifact.manifest["kernels"]["by_name"].keys()
    assert {"batch_prefill_paged_kv", "batch_decode_paged_kv", "take_q4"} <= set(kernels["checked"])
    assert artifact.reference_kernels.is_file()


def test_verify_repeats_the_check_from_the_artifact_alone(built: Path) -> None:
    done: dict[str, Any] = json.loads(edgec(built, "verify", FOLDER, "--json"))
    report = open_artifact(built / FOLDER).report
    assert done["standin"] == "emulator"
    assert done["kernels"]["checked"].keys() == report["kernels"]["checked"].keys()
    assert max(done["golden"]["artifact"].values()) <= done["golden"]["tolerance"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--standin", "emulater"), 2, "did you mean emulator?"),
        (("--standin", "qemu"), 2, "which no CPU runs"),
        (("--device", "cuda"), 2, "only those for CUDA run on a GPU"),
    ],
)
def test_a_stand_in_for_other_libraries_says_so(
    built: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    said = json.loads(edgec(built, "verify", FOLDER, *arguments, "--json", code=code))
    assert message in f"{said['what']}; {said['remedy']}"


def test_inspect_shows_every_form_of_the_library(built: Path) -> None:
    folder = built / FOLDER
    shown = json.loads(edgec(built, "inspect", str(folder), "--json"))["library"]
    assert shown["facts"]["load_alignment"] == 16384
    assert shown["largest"]["threads"]["value"] <= shown["largest"]["threads"]["limit"]
    for name in ("model.tar", "libmodel.a"):
        (library,) = json.loads(edgec(built, "inspect", str(folder / "lib" / name), "--json"))[
            "libraries"
        ]
        assert library["facts"]["prefix"] == "small_q4f16_1_"
        assert library["facts"]["kernels"] == shown["facts"]["kernels"]
