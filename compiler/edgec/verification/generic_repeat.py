"""Repeat the checks of a generic model's finished artifact: kernels and golden outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.runtime.compatibility import check_runtime
from edgec.standins import Requirements
from edgec.verification.generic_library import GenericLibrary
from edgec.verification.golden_tensors import check_golden_tensors, read_golden_tensors
from edgec.verification.samples import sample_inputs

if TYPE_CHECKING:
    from edgec.artifacts.artifact import Artifact


def generic_library(artifact: Artifact, standin: str | None) -> GenericLibrary:
    """An artifact's library as its manifest describes it.

    Raises:
        ToolchainError: TVM is missing, or has another version than the library was compiled by.
    """
    manifest, interface = artifact.manifest, artifact.interface
    assert interface is not None, "of a generic artifact"
    runtime = manifest["runtime"]
    check_runtime(artifact.library, runtime)
    return GenericLibrary(
        path=artifact.library,
        weights=artifact.model,
        function=interface.function,
        standin=standin or manifest["standin"],
        requirements=Requirements(
            architecture=runtime["architecture"],
            cpu_features=tuple(runtime["cpu_features"]),
            cpu=manifest.get("standin_cpu"),
            limits=manifest.get("limits", {}),
        ),
        kernels=sorted(manifest["kernels"].get("by_name", {})),
        references=artifact.reference_kernels,
    )


def repeat_generic_kernels(artifact: Artifact, standin: str | None) -> dict[str, Any]:
    """Run each kernel alone beside its reference; see :func:`edgec.verification.repeat.repeat_kernels`."""
    assert artifact.interface is not None, "of a generic artifact"
    if artifact.golden.is_file():
        inputs = read_golden_tensors(artifact.golden).inputs
    else:
        (inputs,) = sample_inputs(artifact.interface, {}, 1)
    return generic_library(artifact, standin).check_kernels([list(inputs.values())])


def repeat_generic_golden(artifact: Artifact, standin: str | None) -> dict[str, Any]:
    """Run the golden inputs on a stand-in; see :func:`edgec.verification.repeat.repeat_golden`."""
    golden = read_golden_tensors(artifact.golden)
    return check_golden_tensors(generic_library(artifact, standin).open(), golden)
