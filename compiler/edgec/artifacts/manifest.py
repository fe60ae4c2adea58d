"""What an artifact says of itself: where it came from, what it needs, what is in it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec import __version__
from edgec.artifacts.layout import MANIFEST_SCHEMA
from edgec.files import digest_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.artifacts.memory_plan import MemoryPlan
    from edgec.models.parameters import Parameter


_SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Provenance:
    """What an artifact was made from.

    Attributes:
        digest: of all inputs of the build, settings of the artifact included.
        stages: digest of each stage.
        recipe: the recipe's fields after overrides.
        overrides: as given on the command line.
        target: the target's fields.
        architecture: of the CPU that runs the library's host code: ``"aarch64"``.
        family: of the model.
        parameters: of the model.
        model_inputs: digests of the model's files, or its hub commit.
        distributions: version and digest of each installed wheel that took part.
        tools: versions of the linker and other programs that took part, by what they do.
        library: facts that the compile stage wrote.
    """

    digest: str
    stages: Mapping[str, str]
    recipe: Mapping[str, Any]
    overrides: Sequence[str]
    target: Mapping[str, Any]
    architecture: str
    family: str
    parameters: Sequence[Parameter]
    model_inputs: Mapping[str, Any]
    distributions: Mapping[str, Mapping[str, str]]
    tools: Mapping[str, str]
    library: Mapping[str, Any]


def build_manifest(
    made: Provenance, memory: MemoryPlan, files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of ``manifest.json``.

    Args:
        made: where the artifact comes from.
        memory: what it takes.
        files: size and sha256 of every other file, by path.
    """
    weights = sum(math.prod(parameter.shape) for parameter in made.parameters)
    kernels: Mapping[str, str] = made.library["kernels"]
    functions = list(made.library["runtime_functions"])
    quantization = made.recipe["quantization"]
    return {
        "schema": MANIFEST_SCHEMA,
        "name": made.recipe["name"],
        "target": made.target["name"],
        "platform": made.target["platform"],
        "layout": made.target["layout"],
        "library": made.library["library"],
        "model_lib": made.library["model_lib"],
        "libraries": list(made.library["files"]),
        "build": {"digest": made.digest, "stages": dict(made.stages)},
        "recipe": dict(made.recipe),
        "overrides": list(made.overrides),
        "model": {
            "family": made.family,
            "parameters": weights,
            "weights": _SYNTHETIC if _is_synthetic(made.model_inputs) else "own",
            "inputs": dict(made.model_inputs),
        },
        "quantization": {
            "scheme": quantization["scheme"],
            "method": quantization["method"],
            "bits_per_weight": round(8 * memory.weights / weights, 4),
        },
        "toolchain": {
            "edgec": __version__,
            "distributions": {
                name: dict(made.distributions[name]) for name in sorted(made.distributions)
            },
            "tools": dict(made.tools),
        },
        "runtime": {
            "architecture": made.architecture,
            "cpu_features": sorted(made.target["cpu_features"]),
            "tvm": made.distributions["apache-tvm"]["version"],
            "tvm_ffi": made.distributions["apache-tvm-ffi"]["version"],
            # What the library expects of the runtime: an engine can refuse it before loading.
            "functions": functions,
            "functions_digest": digest_json(functions),
        },
        "standin": made.target["standin"],
        "standin_cpu": made.target["standin_cpu"],
        "limits": made.target["limits"],
        "memory": memory.to_json(),
        "kernels": {
            "sources": dict(sorted(Counter(kernels.values()).items())),
            "by_name": dict(kernels),
            # What each takes of the device; compared with the limits when it was compiled.
            "device_kernels": dict(made.library["device_kernels"]),
        },
        "files": {name: dict(files[name]) for name in sorted(files)},
    }


def _is_synthetic(inputs: Mapping[str, Any]) -> bool:
    return bool(inputs.get("model.kind") == _SYNTHETIC)
