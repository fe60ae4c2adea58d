"""What a build would do and how large its result would be, without building it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.artifacts.layout import LIBRARY_FACTS
from edgec.artifacts.memory_plan import MIB, MemoryPlan
from edgec.checkpoints import code_forms, expected_forms, open_checkpoint, tokenizer_files
from edgec.checkpoints.gguf.file import GgufFile
from edgec.checkpoints.gguf.tokenizer import tokenizer_contents
from edgec.layouts.find import find_layout
from edgec.layouts.specs import weight_bytes
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.find import load_family
from edgec.pipeline.blame import blaming
from edgec.pipeline.diagnose import diagnose
from edgec.pipeline.fit import check_fit
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import find_scheme
from edgec.stages.model_file import ModelFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.checkpoints import CodesForm, ModelSource
    from edgec.layouts.find import Layout
    from edgec.models.kv_cache import KVCacheSpec
    from edgec.models.parameters import Parameter
    from edgec.pipeline.diagnose import Diagnosis
    from edgec.pipeline.plan import BuildPlan
    from edgec.pipeline.store import Store
    from edgec.quantization.schemes import Scheme, TensorScheme
    from edgec.recipe.sections import Budget


@dataclass(frozen=True)
class WeightGroup:
    """The parameters that are stored in one way.

    Attributes:
        storage: such as ``"4 bits in groups of 32"``, or the float type.
        parameters: how many there are.
        weights: how many numbers they hold.
        bytes: as they are stored, scales included.
    """

    storage: str
    parameters: int
    weights: int
    bytes: int


@dataclass(frozen=True)
class BudgetCheck:
    """One of the recipe's size limits.

    Attributes:
        name: the field of ``budget``.
        limit: bytes.
        bytes: the size that is known so far.
        complete: whether all parts are known, so that a kept limit stays kept.
    """

    name: str
    limit: int
    bytes: int
    complete: bool

    @property
    def ok(self) -> bool:
        """Whether the limit is kept as far as is known."""
        return self.bytes <= self.limit


@dataclass(frozen=True)
class Preview:
    """What is known of a build before it runs.

    Attributes:
        diagnosis: which stages run, and why.
        weights: by the way of storing them, the largest part first; none of a generic model before it
            is imported.
        memory: ``workspace`` is None before the library is compiled.
        library: bytes of the library; None before it is compiled.
        artifact: bytes of weights, library if it is known, tokenizer and the like; without the
            artifact's own descriptions.
        budgets: those that the recipe sets.
        activations: their type.
    """

    diagnosis: Diagnosis
    weights: tuple[WeightGroup, ...]
    memory: MemoryPlan
    library: int | None
    artifact: int
    budgets: tuple[BudgetCheck, ...]
    activations: str

    @property
    def bits_per_weight(self) -> float:
        """Stored bits by number of weights, scales and plain tensors included; 0 if none is known."""
        weights = sum(group.weights for group in self.weights)
        return 8 * self.memory.weights / weights if weights else 0.0


def preview(plan: BuildPlan, store: Store) -> Preview:
    """Look ahead. Loads TVM for the shapes of the model, and runs nothing.

    Raises:
        EdgecError: the model isn't supported, the quantization doesn't fit it, a tensor doesn't fit
            into the target's buffers, or the store can't be read.
    """
    diagnosis = diagnose(plan.stages, store, plan.name, plan.target.name)
    outputs = {
        stage.name: entry.out
        for stage in diagnosis.stages
        if (entry := store.lookup(stage.name, stage.digest)) is not None
    }
    config = plan.source.config
    quantization = plan.loaded.recipe.quantization
    scheme = find_scheme(quantization.scheme)
    parameters = model_parameters(config)
    schemes = tensor_schemes(
        parameters,
        scheme,
        quantization.group_size,
        quantization.overrides,
        _codes(plan, outputs.get("checkpoint"), parameters),
    )
    check_fit(plan)
    groups = weight_groups(parameters, schemes, scheme, find_layout(plan.target.layout))
    library, workspace = compiled_sizes(outputs.get("compile"))
    with blaming(plan.loaded, plan.source):
        cache = _cache_spec(config, scheme).holding(plan.stored)
    memory = MemoryPlan(
        weights=sum(group.bytes for group in groups),
        kv_cache=cache.sequence_bytes(plan.context_length, plan.window),
        kv_cache_dtype=cache.kept_dtype,
        context_length=plan.context_length,
        sliding_window=plan.window.size if plan.window else None,
        workspace=workspace,
    )
    files = _small_files(outputs.get("checkpoint"), plan.source)
    artifact = memory.weights + files + (library or 0)
    return Preview(
        diagnosis=diagnosis,
        weights=groups,
        memory=memory,
        library=library,
        artifact=artifact,
        budgets=budget_checks(
            plan.loaded.recipe.budget, memory, artifact, complete=library is not None
        ),
        activations=scheme.dtype,
    )


def _codes(
    plan: BuildPlan, stored: Path | None, parameters: Sequence[Parameter]
) -> Mapping[str, CodesForm]:
    """What decides whether matrices have zero points; of a hub model, as its config lets expect."""
    if stored is not None:
        return ModelFile.read(stored).codes
    if plan.source.kind in ("folder", "gguf"):
        recipe = plan.loaded
        return code_forms(open_checkpoint(recipe.recipe.model.source, recipe.base), parameters)
    return expected_forms(plan.source.config, parameters)


def weight_groups(
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
    scheme: Scheme,
    layout: Layout,
) -> tuple[WeightGroup, ...]:
    """The parameters by the way of storing them, the largest part first."""
    members: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        members.setdefault(_storage(schemes[parameter.name], scheme), []).append(parameter)
    groups = [
        WeightGroup(
            storage=storage,
            parameters=len(group),
            weights=sum(math.prod(parameter.shape) for parameter in group),
            bytes=weight_bytes(layout.tensors(group, schemes, scheme.dtype)),
        )
        for storage, group in members.items()
    ]
    return tuple(sorted(groups, key=lambda group: -group.bytes))


def _storage(scheme: TensorScheme | None, whole: Scheme) -> str:
    if scheme is None:
        return whole.dtype
    zeros = ", with zero points" if scheme.zeros else ""
    return f"{scheme.bits} bits in groups of {scheme.group_size}{zeros}"


def _cache_spec(config: dict[str, Any], scheme: Scheme) -> KVCacheSpec:
    family = load_family(config)
    spec: KVCacheSpec = family.build(family.Config.from_hf(config), scheme.dtype).cache_spec
    return spec


def compiled_sizes(folder: Path | None) -> tuple[int | None, dict[str, int] | None]:
    """Size of the library and workspace by function, if the stage ran."""
    if folder is None:
        return None, None
    facts = json.loads((folder / LIBRARY_FACTS).read_text())
    return (folder / facts["library"]).stat().st_size, facts["metadata"]["memory_usage"]


def _small_files(stored: Path | None, source: ModelSource) -> int:
    # Of a model on the hub the files are only there once the stage has fetched them.
    if stored is not None:
        files = [stored / name for name in ModelFile.read(stored).files]
    else:
        files = tokenizer_files(source.folder)
        if not files and source.kind == "gguf":
            file = GgufFile(Path(source.where))
            return sum(map(len, tokenizer_contents(file.metadata, source.where).values()))
    return sum(path.stat().st_size for path in files)


def budget_checks(
    budget: Budget, memory: MemoryPlan, artifact: int, *, complete: bool
) -> tuple[BudgetCheck, ...]:
    """Those limits of a recipe that are set, against the sizes that are known."""
    limits = (
        ("memory_mb", budget.memory_mb, memory.total),
        ("artifact_mb", budget.artifact_mb, artifact),
    )
    return tuple(
        BudgetCheck(name, limit * MIB, size, complete)
        for name, limit, size in limits
        if limit is not None
    )
