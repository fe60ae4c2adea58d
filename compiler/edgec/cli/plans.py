"""From the words of a command to the plans of its builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.cachefolder import cache_root
from edgec.pipeline.filedigests import FileDigests
from edgec.pipeline.plan import plan_build
from edgec.pipeline.plan_generic import plan_generic
from edgec.pipeline.store import Store
from edgec.recipe import LoadedGeneric, find_recipe, load_any_recipe
from edgec.target import load_target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.pipeline.plan import BuildPlan
    from edgec.pipeline.plan_generic import GenericPlan
    from edgec.progress import Progress
    from edgec.recipe import LoadedRecipe
    from edgec.target import Target


@dataclass(frozen=True)
class Request:
    """What a command is about: a recipe, its targets and the store.

    Attributes:
        loaded: the recipe with its overrides.
        targets: each once, in the order in which they were named.
        store: of stage results.
        digests: of the model's files.
    """

    loaded: LoadedRecipe | LoadedGeneric
    targets: tuple[Target, ...]
    store: Store
    digests: FileDigests

    def plan(
        self,
        target: Target,
        *,
        verify: bool,
        dump_ir: Path | None = None,
        progress: Progress | None = None,
    ) -> BuildPlan | GenericPlan:
        """The stages for one target."""
        if isinstance(self.loaded, LoadedGeneric):
            return plan_generic(
                self.loaded, target, self.digests, verify=verify, dump_ir=dump_ir, progress=progress
            )
        return plan_build(
            self.loaded, target, self.digests, verify=verify, dump_ir=dump_ir, progress=progress
        )


def read_request(
    recipe: str, overrides: Sequence[str], targets: Sequence[str], weights: str = "own"
) -> Request:
    """Find and check everything that was named.

    Args:
        recipe: a name or a path.
        overrides: ``key=value`` texts.
        targets: names; without any those of the recipe.
        weights: ``"own"``, or ``"synthetic"`` for random ones.

    Raises:
        EdgecError: something was named that can't be used.
    """
    loaded = load_any_recipe(find_recipe(recipe), overrides, synthetic=weights == "synthetic")
    found = {target.name: target for target in map(load_target, targets or loaded.recipe.targets)}
    store = Store(cache_root())
    return Request(loaded, tuple(found.values()), store, FileDigests(store))
