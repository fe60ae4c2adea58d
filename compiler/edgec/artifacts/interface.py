"""``edgec-model.json``: what a generic model's library takes and returns."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgec.errors import VerificationError
from edgec.files import pretty_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INTERFACE = "edgec-model.json"
SCHEMA = "edgec.model/v1"
PLAIN_FUNCTION = "main"
EMBEDDING_FUNCTION = "prefill"
"""The name under which engines call embedding models."""


@dataclass(frozen=True)
class TensorInterface:
    """An input or output.

    Attributes:
        name: of the argument or result.
        shape: sizes; a text is the name of a dimension that varies, or of an output a sum of those.
        dtype: ``"float32"``, ``"int32"``, ....
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Embedding:
    """How token vectors become the vector of a text.

    Attributes:
        pooling: ``"cls"``, the first token's, or ``"mean"``.
        normalize: whether it is scaled to length 1.
    """

    pooling: Literal["cls", "mean"]
    normalize: bool


@dataclass(frozen=True)
class ModelInterface:
    """The one function of a generic model's library.

    Attributes:
        function: its name. Arguments are the inputs in order and the weights, an array of tensors
            in the order of the metadata's ``params``.
        inputs: in order.
        outputs: in order; an embedding model returns its one output, others a tuple.
        bounds: the largest size of each dimension that varies.
        embedding: how the output becomes an embedding; None for plain functions.
    """

    function: str
    inputs: tuple[TensorInterface, ...]
    outputs: tuple[TensorInterface, ...]
    bounds: Mapping[str, int]
    embedding: Embedding | None = None

    @property
    def batch(self) -> int:
        """The largest first dimension of the first input."""
        return self.largest(self.inputs[0].shape[0]) if self.inputs[0].shape else 1

    @property
    def length(self) -> int:
        """The largest second dimension of the first input: tokens, of an embedding model."""
        return self.largest(self.inputs[0].shape[1])

    def largest(self, size: int | str) -> int:
        """The largest that a size of an input can get."""
        return size if isinstance(size, int) else int(self.bounds[size])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"schema": SCHEMA, **asdict(self)}

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        (folder / INTERFACE).write_text(pretty_json(self.to_json()))


def read_interface(path: Path) -> ModelInterface:
    """Read the file.

    Raises:
        VerificationError: it is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        embedding = data["embedding"]
        interface = ModelInterface(
            function=str(data["function"]),
            inputs=_tensors(data["inputs"]),
            outputs=_tensors(data["outputs"]),
            bounds={str(name): int(bound) for name, bound in data["bounds"].items()},
            embedding=None if embedding is None else Embedding(**embedding),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(
            f"can't be read: {error!r}",
            where=str(path),
            remedy="build the artifact again with edgec build",
        ) from error
    if data.get("schema") != SCHEMA:
        raise VerificationError(
            f"its schema is {data.get('schema')!r}, and this edgec reads {SCHEMA}",
            where=str(path),
            remedy="use the edgec that built it, or build it again",
        )
    return interface


def _tensors(items: list[dict[str, Any]]) -> tuple[TensorInterface, ...]:
    return tuple(
        TensorInterface(str(item["name"]), tuple(item["shape"]), str(item["dtype"]))
        for item in items
    )
