"""A random model of one layer with the tokenizer of the shipped one, for tests that need no more."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from edgec import resources
from numerics.tiny_models import save_random_model

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "small"
"""Name of its recipe."""

_RECIPE = """
schema: edgec.recipe/v1
name: small
model: {source: model}
context: {length: 128, prefill_chunk: 64, max_batch_size: 4}
quantization: {scheme: q4f16_1}
targets: [host]
quality: {text: text.py, tokens: 48, window: 48}
chat: {template: completion}
"""


def write_small_model(folder: Path) -> None:
    """Write the model, its text and its recipe, ``small.yaml``, into a folder."""
    from transformers import LlamaConfig  # noqa: PLC0415 - only these tests need it

    shipped = resources.folder("recipes") / "tinypy"
    vocabulary = json.loads((shipped / "config.json").read_text())["vocab_size"]
    # Layers of equal sizes share their kernels.
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        vocab_size=vocabulary,
        bos_token_id=0,
        eos_token_id=0,
    )
    save_random_model(config, folder / "model", seed=0)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shipped / name, folder / "model")
    (folder / "text.py").write_text("def add(left, right):\n    return left + right\n" * 20)
    (folder / f"{SMALL}.yaml").write_text(_RECIPE)
