"""File names that one stage writes and another reads."""

from __future__ import annotations

CONFIG = "config.json"
"""The model's config, beside copies of its tokenizer files."""
MODULE = "module.json"
"""The imported Relax module, as TVM's JSON graph."""
FACTS = "facts.json"
"""What the lowering needs to know of the imported model."""
RANGES = "ranges.json"
"""Rows of the tables that inputs of a generic model index, by the input's name."""
