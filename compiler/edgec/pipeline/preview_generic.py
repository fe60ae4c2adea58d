"""What a build of a generic model would do and how large its result would be.

What weights there are is known once the source was imported: until then the preview says nothing of
sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.artifacts.memory_plan import MemoryPlan
from edgec.layouts.find import find_layout
from edgec.pipeline.diagnose import diagnose
from edgec.pipeline.preview import Preview, budget_checks, compiled_sizes, weight_groups
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import find_scheme
from edgec.stages.model_file import ModelFile

if TYPE_CHECKING:
    from edgec.pipeline.plan_generic import GenericPlan
    from edgec.pipeline.store import Store


def preview_generic(plan: GenericPlan, store: Store) -> Preview:
    """Look ahead, and run nothing.

    Raises:
        EdgecError: the quantization doesn't fit the model, or the store can't be read.
    """
    diagnosis = diagnose(plan.stages, store, plan.name, plan.target.name)
    outputs = {
        stage.name: entry.out
        for stage in diagnosis.stages
        if (entry := store.lookup(stage.name, stage.digest)) is not None
    }
    quantization = plan.loaded.recipe.quantization
    scheme = find_scheme(quantization.scheme)
    imported = outputs.get("checkpoint")
    model = None if imported is None else ModelFile.read(imported)
    parameters = () if model is None else model.parameters
    schemes = tensor_schemes(
        parameters,
        scheme,
        quantization.group_size,
        # Whether they match is known with the parameters.
        quantization.overrides if parameters else (),
    )
    groups = weight_groups(parameters, schemes, scheme, find_layout(plan.target.layout))
    library, workspace = compiled_sizes(outputs.get("compile"))
    memory = MemoryPlan(
        weights=sum(group.bytes for group in groups),
        kv_cache=0,
        context_length=0,
        workspace=workspace,
    )
    files = 0
    if model is not None and imported is not None:
        files = sum((imported / name).stat().st_size for name in model.files)
    artifact = memory.weights + files + (library or 0)
    known = model is not None and library is not None
    return Preview(
        diagnosis=diagnosis,
        weights=groups,
        memory=memory,
        library=library,
        artifact=artifact,
        budgets=budget_checks(plan.loaded.recipe.budget, memory, artifact, complete=known),
        activations=scheme.dtype,
    )
