"""Refuse a model one of whose tensors is larger than a device's largest buffer, before work starts.

What a model's tensors take follows from its config, its scheme and the target. The compiler checks
again, with the workspace of its kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from edgec import suggest
from edgec.artifacts.memory_plan import MIB
from edgec.errors import BuildError, EdgecError, UsageError
from edgec.layouts.find import find_layout
from edgec.layouts.parts import LIMIT, MOST_PARTS, split_tables, table_parts
from edgec.layouts.specs import nbytes
from edgec.models.causal_lm_parameters import model_parameters
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import SCHEMES, Scheme, find_scheme
from edgec.stages.quantization_inputs import OverrideInput
from edgec.target import list_targets, load_profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgec.layouts.find import Layout
    from edgec.layouts.specs import TensorSpec
    from edgec.models.parameters import Parameter
    from edgec.pipeline.plan import BuildPlan
    from edgec.quantization.plan import Override
    from edgec.target import Target

_TABLES = ("embedding", "head")
_FEWEST_BITS = 4
_LOGIT_BYTES = 4
_TILE = 64  # sizes of chunks that leave kernels no remainder


def check_fit(plan: BuildPlan) -> None:
    """Compare every stored tensor with the target's largest buffer; loads TVM for the shapes.

    Embedding and head may be stored in parts, see :mod:`edgec.layouts.parts`.

    Raises:
        BuildError: a tensor is too large; the message names it, both sizes, and what would fit.
        EdgecError: the model isn't supported, or the quantization doesn't fit it.
    """
    target = plan.target
    most = target.limits.get(LIMIT)
    if most is None:
        return
    quantization = plan.loaded.recipe.quantization
    model = _Model(
        model_parameters(plan.source.config),
        find_scheme(quantization.scheme),
        quantization.group_size,
        tuple(quantization.overrides),
        find_layout(target.layout),
    )
    large = model.largest(target.limits)
    if nbytes(large) <= most:
        _check_logits(model, plan, most)
        return
    roles = {parameter.name: parameter.role for parameter in model.parameters}
    parts = f", nor into {MOST_PARTS}" if roles[large.parameter] in _TABLES else ""
    raise BuildError(
        f"{large.name} takes {nbytes(large) / MIB:.1f} MiB, and a buffer has at most"
        f" {most / MIB:.1f} MiB here: it doesn't fit into one{parts}",
        where=f"{target.name}: limits.{LIMIT}",
        remedy=_remedy(model, target, large),
    )


def _check_logits(model: _Model, plan: BuildPlan, most: int) -> None:
    """Refuse a prefill whose logits of one part of the head, all positions, exceed a buffer.

    They are workspace, which they aren't where the head is whole.
    """
    head, parts = model.head(plan.target.limits)
    row = _LOGIT_BYTES * max(parts, default=0)
    if row * plan.prefill_chunk <= most:
        return
    chunk = most // row
    raise BuildError(
        f"{head} is in {len(parts)} parts, and the logits of {plan.prefill_chunk} tokens for one"
        f" take {row * plan.prefill_chunk / MIB:.1f} MiB, where a buffer has at most"
        f" {most / MIB:.1f} MiB",
        where=f"{plan.target.name}: limits.{LIMIT}",
        remedy=f"lower context.prefill_chunk to {chunk // _TILE * _TILE or chunk}",
    )


@dataclass(frozen=True)
class _Model:
    """A model's parameters and what a recipe says of storing them."""

    parameters: Sequence[Parameter]
    scheme: Scheme
    group_size: int
    overrides: tuple[Override, ...]
    layout: Layout

    def largest(self, limits: Mapping[str, int]) -> TensorSpec:
        """The largest tensor as it is stored for a device with these limits."""
        whole = self._whole()
        stored = split_tables(whole, table_parts(whole, self.parameters, limits))
        return max(stored, key=nbytes)

    def head(self, limits: Mapping[str, int]) -> tuple[str, tuple[int, ...]]:
        """The parameter that gives logits, and the rows of its parts; none if it is whole."""
        names = {parameter.role: parameter.name for parameter in self.parameters}
        head = names.get("head") or names.get("embedding", "")
        return head, table_parts(self._whole(), self.parameters, limits).get(head, ())

    def _whole(self) -> list[TensorSpec]:
        schemes = tensor_schemes(self.parameters, self.scheme, self.group_size, self.overrides)
        return self.layout.tensors(self.parameters, schemes, self.scheme.dtype)

    def fits(self, limits: Mapping[str, int]) -> bool:
        """Whether it can be stored so, and no tensor is too large for a device with these limits."""
        try:
            return LIMIT not in limits or nbytes(self.largest(limits)) <= limits[LIMIT]
        except UsageError:
            return False


def _remedy(model: _Model, target: Target, large: TensorSpec) -> str:
    """Everything that was tried and fits."""
    found = []
    if schemes := list(_schemes(model, target)):
        found.append(f"choose quantization.scheme {suggest.listing(schemes, last='or')}")
    elif _override(model, large).fits(target.limits):
        found.append(f"give {large.parameter} {_FEWEST_BITS} bits in quantization.overrides")
    if targets := list(_targets(model, target)):
        found.append(f"build for {suggest.listing(targets, last='or')}")
    if not found:
        return "choose a model with smaller matrices: no scheme and no other target makes it fit"
    return ", or ".join(found)


def _schemes(model: _Model, target: Target) -> Iterable[str]:
    for scheme in SCHEMES.values():
        fewer = 0 < scheme.bits < (model.scheme.bits or scheme.bits + 1)
        other = replace(model, scheme=scheme)
        if fewer and scheme.dtype == model.scheme.dtype and other.fits(target.limits):
            yield scheme.name


def _override(model: _Model, large: TensorSpec) -> _Model:
    """The model with the fewest bits for one parameter, by the entry that has it or a new one."""
    name = large.parameter
    own = [item for item in model.overrides if fnmatchcase(name, item.match)][:1]
    if not own:
        first = OverrideInput(name, _FEWEST_BITS, None)
        return replace(model, overrides=(first, *model.overrides))
    changed = OverrideInput(own[0].match, _FEWEST_BITS, own[0].group_size)
    overrides = (changed if item is own[0] else item for item in model.overrides)
    return replace(model, overrides=tuple(overrides))


def _targets(model: _Model, target: Target) -> Iterator[str]:
    for name in list_targets():
        try:
            other = load_profile(name)
        except EdgecError:
            continue  # of another profile that is broken nothing is to be said here
        alike = (other.platform, other.activations) == (target.platform, target.activations)
        stored = replace(model, layout=find_layout(other.layout))
        if alike and stored.fits(other.limits):
            yield name
