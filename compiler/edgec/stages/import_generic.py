"""Stage 3 of generic models: the imported function in the recipe's scheme, shared by all targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.artifacts.interface import INTERFACE, read_interface
from edgec.files import pretty_json
from edgec.ir.load import load_tvm
from edgec.stages.model_file import ModelFile
from edgec.stages.names import FACTS, MODULE
from edgec.stages.quantization_inputs import read_scheme, read_schemes

if TYPE_CHECKING:
    from edgec.stages.context import StageContext

_HALF = "float16"


def run(context: StageContext) -> None:
    """Choose the type of the arithmetic, quantize, and take the weights as one tuple."""
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    from edgec.passes.half_precision import HalfPrecision  # noqa: PLC0415
    from edgec.passes.name_function import NameFunction  # noqa: PLC0415
    from edgec.passes.pack_parameters import PackParameters, check_readers  # noqa: PLC0415

    folder = context.parents["checkpoint"]
    model, interface = ModelFile.read(folder), read_interface(folder / INTERFACE)
    scheme = read_scheme(context.inputs)
    schemes = read_schemes(model.parameters, context.inputs, model.codes)
    mod = tvm.ir.load_json((folder / MODULE).read_text())
    check_readers(mod, model.parameters, schemes)
    steps: list[Any] = [HalfPrecision(len(interface.inputs))] if scheme.dtype == _HALF else []
    steps.append(PackParameters(model.parameters, schemes))
    steps.append(NameFunction(interface.function, unwrap=interface.embedding is not None))
    mod = tvm.transform.Sequential(steps)(mod)
    (context.out / MODULE).write_text(tvm.ir.save_json(mod))
    fields = mod[interface.function].params[-1].ty.fields
    facts = {
        "dtype": scheme.dtype,
        "scheme": scheme.name,
        "weights": [_weight(index, field) for index, field in enumerate(fields)],
    }
    (context.out / FACTS).write_text(pretty_json(facts))


def _weight(index: int, field: Any) -> dict[str, Any]:
    shape = [int(size) for size in field.shape.values]
    return {"name": str(index), "shape": shape, "dtype": str(field.dtype)}
