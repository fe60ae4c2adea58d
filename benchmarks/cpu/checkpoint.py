"""The random weights that edgec computes, as a model folder that other engines' converters read."""

from __future__ import annotations

import json
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


def write_checkpoint(config: dict[str, Any], config_file: Path, folder: Path) -> None:
    """Write the weights in float16, with a config and a tokenizer of made-up words.

    Args:
        config: of the model.
        config_file: the same as a file, which names the synthetic checkpoint.
        folder: an empty one.
    """
    sources = [source for item in model_parameters(config) for source in item.sources]
    checkpoint = open_checkpoint(
        f"synthetic:{config_file}", Path.cwd(), tensors=lambda _config: sources
    )
    types = {name: (checkpoint.info(name).shape, "float16") for name in checkpoint.names()}
    write_safetensors(
        folder / "model.safetensors", types, _arrays(checkpoint), metadata={"format": "pt"}
    )
    stored = {**config, "torch_dtype": "float16", "dtype": "float16"}
    (folder / "config.json").write_text(pretty_json(stored))
    ends = config["eos_token_id"]
    generation = {"bos_token_id": config["bos_token_id"], "eos_token_id": ends}
    (folder / "generation_config.json").write_text(pretty_json(generation))
    _write_tokenizer(config, folder)


def _arrays(checkpoint: Checkpoint) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    for name in checkpoint.names():
        shape = checkpoint.info(name).shape
        values = np.empty(shape, np.float32)
        checkpoint.rows_into(name, 0, shape[0], values)
        yield name, values.astype(np.float16)


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
