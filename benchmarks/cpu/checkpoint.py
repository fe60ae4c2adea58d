"""The random weights that edgec computes, as a model folder that other engines' converters read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from edgec.checkpoints import open_checkpoint
from edgec.checkpoints.safetensors_writer import write_safetensors
from edgec.files import pretty_json
from edgec.models.causal_lm_parameters import model_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from edgec.checkpoints.checkpoint import Checkpoint


CONFIG = "config.json"
_PIECE = 1 << 24
"""Numbers that are computed at a time: an embedding whole in float32 takes gigabytes."""


def write_source(config: dict[str, Any], folder: Path) -> None:
    """Write a config, and a tokenizer of made-up words.

    Args:
        config: of the model.
        folder: an empty one.
    """
    stored = {**config, "torch_dtype": "float16", "dtype": "float16"}
    (folder / CONFIG).write_text(pretty_json(stored))
    ends = config["eos_token_id"]
    generation = {"bos_token_id": config["bos_token_id"], "eos_token_id": ends}
    (folder / "generation_config.json").write_text(pretty_json(generation))
    _write_tokenizer(config, folder)


def write_checkpoint(config: dict[str, Any], config_file: Path, folder: Path) -> None:
    """Write the weights in float16.

    Args:
        config: of the model.
        config_file: the same as a file, which names the synthetic checkpoint.
        folder: gets them as one file.
    """
    sources = [source for item in model_parameters(config) for source in item.sources]
    checkpoint = open_checkpoint(
        f"synthetic:{config_file}", Path.cwd(), tensors=lambda _config: sources
    )
    types = {name: (checkpoint.info(name).shape, "float16") for name in checkpoint.names()}
    write_safetensors(
        folder / "model.safetensors", types, _arrays(checkpoint), metadata={"format": "pt"}
    )


def _arrays(checkpoint: Checkpoint) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    for name in checkpoint.names():
        rows, *rest = checkpoint.info(name).shape
        held = np.empty((rows, *rest), np.float16)
        count = max(1, _PIECE // math.prod(rest))
        for start in range(0, rows, count):
            stop = min(rows, start + count)
            values = np.empty((stop - start, *rest), np.float32)
            checkpoint.rows_into(name, start, stop, values)
            held[start:stop] = values
        yield name, held


def _write_tokenizer(config: dict[str, Any], folder: Path) -> None:
    """Converters want one; the measurements are made with token ids."""
    words = {f"w{number}": number for number in range(config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    end = config["eos_token_id"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": f"w{config['bos_token_id']}",
        "eos_token": f"w{end[0] if isinstance(end, list) else end}",
        "unk_token": "w0",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
