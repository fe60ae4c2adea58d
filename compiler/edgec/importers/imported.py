"""What importers hand over: a Relax function, its weights and the types of its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgec.models.parameters import Parameter

    Weights = Callable[[], Iterator[tuple[str, NDArray[np.generic]]]]


@dataclass(frozen=True)
class TensorType:
    """An input or output by name.

    Attributes:
        name: of the argument or result.
        shape: sizes; a text is the name of a dimension that varies.
        dtype: such as ``"float32"``; integers are ``"int32"``.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """The inputs of a model and how large their varying dimensions can get.

    Attributes:
        inputs: in the order of the arguments.
        bounds: the largest size of each dimension that varies.
    """

    inputs: tuple[TensorType, ...]
    bounds: Mapping[str, int]


@dataclass(frozen=True)
class ImportedModel:
    """A model as the passes take it.

    Attributes:
        mod: an IRModule whose one function ``main`` takes the inputs, then one tensor for each of
            ``parameters``, and returns a tuple of the outputs. Its attribute ``num_input`` is the
            number of inputs. A linear layer is ``matmul(x, permute_dims(w))`` of a parameter ``w``
            of shape ``(out, in)``, a lookup is ``take(table, ids, axis=0)`` of ids ``(n,)``.
        inputs: types of the inputs.
        outputs: types of the outputs; sizes that depend on varying ones are text, such as
            ``"2 * length"``.
        bounds: the largest size of each dimension that varies.
        parameters: name, shape and role of each weight: ``linear`` and ``embedding`` for those of
            the forms above, ``plain`` for all others.
        weights: yields name and float32 array of each parameter, one at a time, in their order.
    """

    mod: Any
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    bounds: Mapping[str, int]
    parameters: tuple[Parameter, ...]
    weights: Weights


class SourceModel(Protocol):
    """A model in the framework that it comes from."""

    signature: Signature

    def imported(self) -> ImportedModel:
        """Translate it to Relax; loads TVM.

        Raises:
            UnsupportedModelError: it has operators that can't be translated.
        """

    def run(
        self,
        inputs: Sequence[NDArray[np.generic]],
        replaced: Mapping[str, NDArray[np.generic]] | None = None,
        rounded: Mapping[str, int] | None = None,
    ) -> list[NDArray[np.generic]]:
        """The outputs as the framework itself computes them, in float32.

        Args:
            inputs: in the order of the signature.
            replaced: other values of linear and embedding parameters, by the names and in the
                shapes of :attr:`ImportedModel.parameters`.
            rounded: how many columns of activations share a scale where linear layers round them to 8
                bits, by the name of a parameter that is replaced; the others don't round.
        """
