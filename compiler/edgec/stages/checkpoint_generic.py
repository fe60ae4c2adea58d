"""Stage 1 of generic models: import the source once, so that no later stage needs its framework.

Writes the Relax module, the weights as safetensors, ``model.json``, the interface, and copies of the
tokenizer's files. Only this stage and ``verify`` load torch or ONNX.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.artifacts.interface import (
    EMBEDDING_FUNCTION,
    PLAIN_FUNCTION,
    Embedding,
    ModelInterface,
    TensorInterface,
)
from edgec.checkpoints import tokenizer_files
from edgec.checkpoints.folder import SINGLE_NAME
from edgec.checkpoints.json_file import read_json_object
from edgec.checkpoints.safetensors_writer import write_safetensors
from edgec.errors import BuildError, UsageError
from edgec.files import pretty_json
from edgec.models.parameters import Parameter
from edgec.stages.generic_source import open_original
from edgec.stages.model_file import ModelFile
from edgec.stages.names import CONFIG, MODULE, RANGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from edgec.importers.imported import ImportedModel
    from edgec.stages.context import StageContext

_MATRICES = ("linear", "embedding")
_GENERIC = "generic"


def run(context: StageContext) -> None:
    """See the module's docstring."""
    context.progress.note("opening the model")
    original = open_original({**context.local, "check": True}, context.inputs)
    context.progress.note("translating it to Relax")
    imported = original.model.imported()
    # After the importer, which decides the order in which torch and TVM are loaded.
    import tvm  # noqa: PLC0415

    from edgec.ir.inputs import table_rows  # noqa: PLC0415

    interface = _interface(imported, context.inputs["generic.task"])
    (context.out / MODULE).write_text(tvm.ir.save_json(imported.mod))
    _write_weights(context, imported)
    interface.write(context.out)
    names = [var.name for var in imported.mod["main"].params]
    rows = table_rows(imported.mod["main"])
    ranges = {
        item.name: rows[name]
        for item, name in zip(imported.inputs, names, strict=False)
        if name in rows
    }
    (context.out / RANGES).write_text(pretty_json(ranges))
    config = _config(original.folder, context)
    (context.out / CONFIG).write_text(pretty_json(config))
    copied = []
    for file in tokenizer_files(original.folder) if original.folder else []:
        shutil.copyfile(file, context.out / file.name)
        copied.append(file.name)
    parameters = tuple(map(_stored, imported.parameters))
    family = str(config.get("model_type") or _GENERIC)
    ModelFile(family, config, parameters, tuple(copied)).write(context.out)


def _stored(parameter: Parameter) -> Parameter:
    """The parameter under a name that layouts can make several of: matrices end in ``.weight``."""
    if parameter.role not in _MATRICES or parameter.name.endswith(".weight"):
        return parameter
    name = f"{parameter.name}.weight"
    return Parameter(name, parameter.shape, parameter.role, parameter.sources)


def _write_weights(context: StageContext, imported: ImportedModel) -> None:
    types = {
        source.name: (source.shape, "float32")
        for parameter in imported.parameters
        for source in parameter.sources
    }
    total = sum(4 * int(np.prod(shape)) for shape, _ in types.values())
    context.progress.start(total, "bytes")

    def arrays() -> Iterator[tuple[str, npt.NDArray[Any]]]:
        for name, array in imported.weights():
            yield name, array
            context.progress.advance(array.nbytes)

    try:
        write_safetensors(context.out / SINGLE_NAME, types, arrays())
    except OSError as error:
        raise BuildError(
            f"the weights can't be written: {error.strerror or error}",
            where="stage checkpoint",
            remedy="free some space, or move the cache with EDGEC_CACHE",
        ) from error


def _interface(imported: ImportedModel, task: Mapping[str, Any] | None) -> ModelInterface:
    inputs = tuple(TensorInterface(i.name, i.shape, i.dtype) for i in imported.inputs)
    outputs = tuple(TensorInterface(o.name, o.shape, o.dtype) for o in imported.outputs)
    bounds = dict(imported.bounds)
    if task is None:
        return ModelInterface(PLAIN_FUNCTION, inputs, outputs, bounds)
    ids = [item for item in inputs if len(item.shape) == 2 and item.dtype == "int32"]
    vectors = len(outputs) == 1 and len(outputs[0].shape) == 3
    if len(inputs) != 2 or len(ids) != 2 or not vectors:
        takes = ", ".join(f"{item.name} {item.dtype}{list(item.shape)}" for item in inputs)
        gives = ", ".join(f"{item.name}{list(item.shape)}" for item in outputs)
        raise UsageError(
            "an embedding model takes token ids and a mask, both (batch, length), and returns"
            f" (batch, length, hidden); this one takes {takes} and returns {gives}",
            where="task",
            remedy="leave task out, which builds it as a function of tensors",
        )
    return ModelInterface(
        EMBEDDING_FUNCTION,
        inputs,
        outputs,
        bounds,
        Embedding(task["pooling"], bool(task["normalize"])),
    )


def _config(folder: Path | None, context: StageContext) -> dict[str, Any]:
    """The source's ``config.json``; an empty one where there is none."""
    named = context.local.get("config")
    path = folder / CONFIG if named is None and folder is not None else named
    if path is None:
        return {}
    return read_json_object(Path(path), missing="check the model's source")
