"""Which parameter is stored how: a scheme, a group size and a recipe's overrides, resolved."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from edgec.errors import UsageError
from edgec.quantization.schemes import Scheme, TensorScheme
from edgec.quantization.takeover import fits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.checkpoints.codes import CodesForm
    from edgec.models.parameters import Parameter

_MATRICES = frozenset({"linear", "embedding", "head"})
_CODE_BITS = (4, 8)
_PLAIN_BITS = 16
# The codes of a group fill whole 32-bit words in every layout: 8 int4 codes to a word.
_GROUP_MULTIPLE = 8


class Override(Protocol):
    """What a recipe says about some parameters in place of the scheme."""

    @property
    def match(self) -> str:
        """A glob on parameter names."""

    @property
    def bits(self) -> int:
        """4 or 8; 16 leaves the parameter in the scheme's float type."""

    @property
    def group_size(self) -> int | None:
        """None: that of the recipe."""


def tensor_schemes(
    parameters: Sequence[Parameter],
    scheme: Scheme,
    group_size: int,
    overrides: Sequence[Override] = (),
    codes: Mapping[str, CodesForm] = MappingProxyType({}),
) -> dict[str, TensorScheme | None]:
    """Decide for every parameter how it is stored; the first override that matches wins.

    Matrices (roles linear, embedding and head) are quantized; norms, biases and the routers of experts never are.

    Args:
        parameters: of the model, in the order of the result.
        scheme: of the whole model.
        group_size: where an override names none.
        overrides: of the recipe, in its order.
        codes: the checkpoint's tensors that are codes already, by name. Of a parameter that takes
            codes with zero points over, the scheme has them.

    Returns:
        A scheme per parameter name, None for plain tensors.

    Raises:
        UsageError: a row doesn't divide into groups, or an override has no effect.
    """
    used = [False] * len(overrides)
    chosen: dict[str, TensorScheme | None] = {}
    for parameter in parameters:
        chosen[parameter.name] = None
        if parameter.role not in _MATRICES:
            continue
        bits, group = scheme.bits, group_size
        for index, override in enumerate(overrides):
            if fnmatchcase(parameter.name, override.match):
                used[index] = True
                bits, group = override.bits, override.group_size or group_size
                break
        if bits not in (0, _PLAIN_BITS):
            stored = _tensor_scheme(parameter, bits, group, scheme)
            forms = (codes.get(source.name) for source in parameter.sources)
            zeros = any(form.zeros and fits(form, stored) for form in forms if form is not None)
            chosen[parameter.name] = replace(stored, zeros=zeros)
    _check_used(parameters, overrides, used)
    return chosen


def _tensor_scheme(parameter: Parameter, bits: int, group: int, scheme: Scheme) -> TensorScheme:
    assert bits in _CODE_BITS, bits
    columns = parameter.shape[-1]
    if group % _GROUP_MULTIPLE or columns % group:
        fitting = [
            size for size in range(_GROUP_MULTIPLE, 257, _GROUP_MULTIPLE) if columns % size == 0
        ]
        divide = f"choose a group size from {fitting}" if fitting else "choose another scheme"
        raise UsageError(
            f"the rows of {parameter.name} have K = {columns} weights, "
            f"which don't divide into groups of {group}",
            where="quantization.group_size",
            remedy=f"{divide}, or add an override with bits: 16 for this parameter",
        )
    return TensorScheme(bits=bits, group_size=group, scale_dtype=scheme.dtype)


def _check_used(
    parameters: Sequence[Parameter], overrides: Sequence[Override], used: Sequence[bool]
) -> None:
    for index, override in enumerate(overrides):
        if used[index]:
            continue
        where = f"quantization.overrides.{index}.match"
        hits = [p for p in parameters if fnmatchcase(p.name, override.match)]
        if not hits:
            matrices = [p.name for p in parameters if p.role in _MATRICES]
            raise UsageError(
                f"{override.match!r} matches no parameter",
                where=where,
                remedy=f"remove it or correct it; one of the names is {matrices[0]!r}"
                if matrices
                else "remove it",
            )
        if all(p.role not in _MATRICES for p in hits):
            raise UsageError(
                f"{override.match!r} matches only norms and biases or routers, which are never quantized",
                where=where,
                remedy="remove it",
            )
        raise UsageError(
            f"every parameter that {override.match!r} matches is taken by an earlier override",
            where=where,
            remedy="put it before that one, or remove it",
        )
