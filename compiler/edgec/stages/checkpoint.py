"""Stage 1: open the weights, check them against the family's parameters, keep the small files.

Reads headers only. Writes ``model.json`` and copies of the config and tokenizer files, so that no
later stage but ``quantize`` and ``verify`` needs the checkpoint itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.checkpoints import (
    check_parameters,
    code_forms,
    open_checkpoint,
    open_source,
    tokenizer_files,
)
from edgec.checkpoints.gguf.checkpoint import GgufCheckpoint
from edgec.checkpoints.gguf.tokenizer import write_tokenizer
from edgec.files import pretty_json
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.find import family_name, load_family
from edgec.models.hf_config import language_config
from edgec.stages.model_file import ModelFile
from edgec.stages.names import CONFIG

if TYPE_CHECKING:
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """See the module's docstring."""
    source, base = str(context.local["source"]), Path(str(context.local["base"]))
    seed = int(context.local["seed"])
    checkpoint = open_checkpoint(
        source,
        base,
        seed=seed,
        tensors=lambda config: [s for p in model_parameters(config) for s in p.sources],
        check=True,
    )
    context.progress.note("checking tensor names and shapes")
    parameters = model_parameters(checkpoint.config)
    ignore = load_family(checkpoint.config).IGNORED_TENSORS
    check_parameters(checkpoint, parameters, ignore=ignore)
    config = language_config(checkpoint.config)
    (context.out / CONFIG).write_text(pretty_json(config))
    copied: list[str] = []
    for file in tokenizer_files(open_source(source, base).folder):
        shutil.copyfile(file, context.out / file.name)
        copied.append(file.name)
    if not copied and isinstance(checkpoint, GgufCheckpoint):
        context.progress.note("making the tokenizer's files from the metadata")
        copied = write_tokenizer(checkpoint.file.metadata, context.out, checkpoint.where)
    ModelFile(
        family_name(config),
        config,
        tuple(parameters),
        tuple(copied),
        code_forms(checkpoint, parameters),
    ).write(context.out)
