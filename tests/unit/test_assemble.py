"""An artifact is put together from its parts, and its manifest says what it takes to verify it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgec.artifacts.artifact import open_artifact
from edgec.artifacts.assemble import Parts, assemble
from edgec.artifacts.manifest import Provenance, build_manifest
from edgec.artifacts.memory_plan import MemoryPlan
from edgec.models.parameters import Parameter, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NEEDS = {"gemm": {"threads": 256, "shared_memory_bytes": 8, "buffers": 4, "argument_bytes": 40}}
LIMITS = {"max_threads": 256}
TARGET = {
    "name": "phone",
    "platform": "android",
    "layout": "mlc",
    "cpu_features": ["fp", "asimd"],
    "standin": "qemu",
    "standin_cpu": "max",
    "limits": LIMITS,
}


def provenance() -> Provenance:
    return Provenance(
        digest="d" * 64,
        stages={"compile": "c" * 64},
        recipe={
            "schema": "edgec.recipe/v1",
            "name": "toy",
            "quantization": {"scheme": "q4f16_1", "method": "rtn"},
        },
        overrides=[],
        target=TARGET,
        architecture="aarch64",
        family="llama",
        parameters=[Parameter("w", (4, 32), "linear", (Source("w", (4, 32)),))],
        model_inputs={},
        distributions={
            name: {"version": "1", "digest": "e"} for name in ("apache-tvm", "apache-tvm-ffi")
        },
        tools={"linker": "ld 1"},
        library={
            "library": "model.so",
            "files": ["model.so", "model.tar"],
            "model_lib": "toy_q4f16_1",
            "kernels": {"gemm": "rule", "take": "hand-written"},
            "device_kernels": NEEDS,
            "runtime_functions": ["vm.builtin.copy"],
        },
    )


def parts(folder: Path, *, kernels: bool) -> Parts:
    for name in ("compiled/model.so", "compiled/model.tar", "weights/shard", "kernels.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return Parts(
        libraries=(folder / "compiled/model.so", folder / "compiled/model.tar"),
        weights=folder / "weights",
        tokenizer=(),
        chat_config={"vocab_size": 3},
        report={"schema": "edgec.report/v1"},
        golden=None,
        reference_kernels=folder / "kernels.json" if kernels else None,
    )


def assembled(folder: Path, *, kernels: bool) -> dict[str, Any]:
    def manifest(files: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        return build_manifest(provenance(), MemoryPlan(64, 8, 16, {"prefill": 4}), files)

    return assemble(folder / "artifact", parts(folder / "parts", kernels=kernels), manifest)


@pytest.mark.parametrize("kernels", [True, False])
def test_references_of_kernels_are_part_of_it(tmp_path: Path, kernels: bool) -> None:
    manifest = assembled(tmp_path, kernels=kernels)
    assert ("kernels.json" in manifest["files"]) == kernels
    artifact = open_artifact(tmp_path / "artifact")
    artifact.check_files()
    assert artifact.reference_kernels.is_file() == kernels
    if kernels:
        assert artifact.reference_kernels.read_text() == "kernels.json"


def test_the_manifest_says_what_verifying_needs(tmp_path: Path) -> None:
    assembled(tmp_path, kernels=True)
    manifest = json.loads((tmp_path / "artifact/manifest.json").read_text())
    assert manifest["standin"] == "qemu"
    assert manifest["standin_cpu"] == "max"
    assert manifest["limits"] == LIMITS
    assert manifest["runtime"]["architecture"] == "aarch64"
    assert manifest["runtime"]["cpu_features"] == ["asimd", "fp"]
    assert manifest["kernels"] == {
        "sources": {"hand-written": 1, "rule": 1},
        "by_name": {"gemm": "rule", "take": "hand-written"},
        "device_kernels": NEEDS,
    }


def test_only_shared_libraries_are_executable(tmp_path: Path) -> None:
    assembled(tmp_path, kernels=False)
    modes = {
        path.name: path.stat().st_mode & 0o111 for path in (tmp_path / "artifact/lib").iterdir()
    }
    assert modes == {"model.so": 0o111, "model.tar": 0}


def test_a_model_manifest_lies_beside_the_weights(tmp_path: Path) -> None:
    assert "model/mlc-model-manifest.json" not in assembled(tmp_path, kernels=False)["files"]
    given = replace(parts(tmp_path / "parts", kernels=False), model_manifest={"schema": "s"})
    manifest = assemble(tmp_path / "other", given, lambda files: {"files": dict(files)})
    assert "model/mlc-model-manifest.json" in manifest["files"]
    written = json.loads((tmp_path / "other/model/mlc-model-manifest.json").read_text())
    assert written == {"schema": "s"}
