"""Stage 3: the model as one Relax module with logical weights, shared by all targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.files import pretty_json
from edgec.ir.load import load_tvm
from edgec.models.find import load_family
from edgec.stages.model_file import ModelFile
from edgec.stages.names import FACTS, MODULE
from edgec.stages.quantization_inputs import read_scheme, read_schemes

if TYPE_CHECKING:
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """Build the family's model with the recipe's schemes and export it."""
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    from edgec.models.causal_lm import apply_schemes, parameters_of  # noqa: PLC0415

    model_file = ModelFile.read(context.parents["checkpoint"])
    scheme = read_scheme(context.inputs)
    family = load_family(model_file.config)
    model = family.build(family.Config.from_hf(model_file.config), scheme.dtype)
    schemes = read_schemes(parameters_of(model), context.inputs, model_file.codes)
    apply_schemes(model, schemes)
    if size := context.inputs.get("image.size"):
        model.image_size = int(size)
    context.progress.note("building the Relax module")
    mod, parameters = model.export_tvm(spec=model.export_spec())
    (context.out / MODULE).write_text(tvm.ir.save_json(mod))
    facts = {
        "cache": model.cache_spec.to_json(),
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "dtype": model.dtype,
        "image_size": getattr(model, "image_size", None),
        "scheme": scheme.name,
        "weights": [
            {"name": name, "shape": [int(n) for n in item.shape], "dtype": str(item.dtype)}
            for name, item in parameters
        ],
    }
    (context.out / FACTS).write_text(pretty_json(facts))
