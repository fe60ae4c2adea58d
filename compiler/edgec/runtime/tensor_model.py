"""A generic artifact that is loaded on this machine: a function of numpy arrays.

model = open_model(open_artifact(Path("artifacts/detector/host")))
outputs = model.run({"image": image})
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.artifacts.artifact import Artifact, open_artifact
from edgec.errors import UsageError
from edgec.runtime.compatibility import check_runtime
from edgec.runtime.load import load_engine
from edgec.runtime.threads import set_threads
from edgec.suggest import instead_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgec.artifacts.interface import ModelInterface, TensorInterface
    from edgec.runtime.engine import Engine

    Array = npt.NDArray[Any]

# Kinds of numpy's types that become a type of the library without loss that matters.
_TAKEN = {"float32": "fiu", "float16": "fiu", "int32": "iub", "uint8": "iub", "bool": "b"}


@dataclass(frozen=True)
class TensorModel:
    """A loaded artifact.

    Attributes:
        artifact: that was opened.
        interface: what its function takes and returns.
        engine: the library.
        threads: size of the runtime's thread pool.
        load_seconds: from the first file to a ready library.
    """

    artifact: Artifact
    interface: ModelInterface
    engine: Engine
    threads: int
    load_seconds: float

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Call the model.

        Args:
            inputs: an array for each input, by name. 64-bit numbers are narrowed.

        Returns:
            The outputs by name.

        Raises:
            UsageError: an input is missing or unknown, has another shape or type, or numbers that
                don't fit; the input is named.
        """
        names = [item.name for item in self.interface.inputs]
        for name in inputs:
            if name not in names:
                raise UsageError(
                    "the model has no input of this name",
                    where=name,
                    remedy=instead_of(name, names, noun="inputs"),
                )
        sizes: dict[str, int] = {}
        arguments = [
            _argument(item, inputs.get(item.name), self.interface, sizes)
            for item in self.interface.inputs
        ]
        outputs = self.engine.run(self.interface.function, *arguments)
        return {
            item.name: array for item, array in zip(self.interface.outputs, outputs, strict=True)
        }


def open_model(artifact: Artifact | Path, *, threads: int | None = None) -> TensorModel:
    """Load a generic artifact on this machine.

    Args:
        artifact: an opened one, or its folder.
        threads: size of the runtime's thread pool; None for one per core that
            the process may use.

    Raises:
        UsageError: it is the artifact of a decoder.
        ToolchainError: this processor can't run the library, or the installed runtime isn't the
            one that it was built for.
        VerificationError: a file is missing or cut short, or the library is damaged.
        CheckpointError: the weights are damaged.
    """
    started = time.perf_counter()
    opened = artifact if isinstance(artifact, Artifact) else open_artifact(artifact)
    interface = opened.interface
    if interface is None:
        raise UsageError(
            "the artifact is a decoder of text, not a function of tensors",
            where=str(opened.folder),
            remedy="open it with edgec.runtime.session.open_session",
        )
    runtime = opened.manifest["runtime"]
    check_runtime(opened.library, runtime)
    opened.check_before_loading()
    chosen = set_threads(threads)
    engine = load_engine(
        opened.library, opened.model, runtime["cpu_features"], runtime["architecture"]
    )
    return TensorModel(opened, interface, engine, chosen, time.perf_counter() - started)


def _argument(
    item: TensorInterface,
    array: Array | None,
    interface: ModelInterface,
    sizes: dict[str, int],
) -> Array:
    """An input in the library's type; sizes that vary are noted, and have to agree."""
    wanted = f"{item.dtype}[{', '.join(map(str, item.shape))}]"
    if array is None:
        raise UsageError("the input is missing", where=item.name, remedy=f"give a tensor {wanted}")
    if len(array.shape) != len(item.shape):
        raise _misfit(item, array, wanted)
    for size, declared in zip(array.shape, item.shape, strict=True):
        if isinstance(declared, int):
            if size != declared:
                raise _misfit(item, array, wanted)
            continue
        most = interface.bounds[declared]
        if not 1 <= size <= most:
            raise UsageError(
                f"{declared} is {size}, and the artifact was built for 1 to {most}",
                where=item.name,
                remedy=f"give at most {most}, or build with a larger dimensions.{declared}.max",
            )
        if sizes.setdefault(declared, size) != size:
            raise UsageError(
                f"{declared} is {size} here and {sizes[declared]} in another input",
                where=item.name,
                remedy="give inputs of the same size",
            )
    if array.dtype.kind not in _TAKEN[item.dtype]:
        raise _misfit(item, array, wanted)
    narrowed = np.ascontiguousarray(array.astype(item.dtype))
    if narrowed.dtype.kind in "iu" and not np.array_equal(narrowed, array):
        raise UsageError(
            f"it has numbers that {item.dtype} can't hold",
            where=item.name,
            remedy="give smaller numbers",
        )
    return narrowed


def _misfit(item: TensorInterface, array: Array, wanted: str) -> UsageError:
    return UsageError(
        f"a tensor {array.dtype}{list(array.shape)} is given, and {wanted} is needed",
        where=item.name,
        remedy="give one of that shape and type",
    )
