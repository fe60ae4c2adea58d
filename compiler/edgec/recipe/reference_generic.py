"""The reference page of generic recipes; ``docs/reference/generic.md`` holds it."""

from __future__ import annotations

from edgec.recipe.jsonschema import generic_json_schema
from edgec.validation.reference import field_tables

EXAMPLE = """\
# yaml-language-server: $schema=../docs/schemas/recipe.schema.json
schema: edgec.recipe/v1
kind: generic
name: minilm-l6 # also the folder of the artifacts
description: Sentence embeddings of English text.

model:
  source: hf:sentence-transformers/all-MiniLM-L6-v2@main # or a folder, .onnx, .pt2, torch:FILE.py:FUNCTION
  seed: 0 # of the random weights of a synthetic: source, else 0

task: # left out, the model is a function of tensors
  kind: embedding
  pooling: mean
  normalize: true

inputs: # only what the source doesn't say
  input_ids:
    shape: [batch, length]
    dtype: int32
    range: [0, 30522]
  mask:
    range: [0, 2]

dimensions: # sizes that vary
  batch: {max: 8}
  length: {max: 256}

quantization:
  scheme: q4f16_1
  method: rtn
  group_size: 32
  overrides: # the first that matches a parameter's name wins
    - match: "*word_embeddings*"
      bits: 8
      group_size: 64

targets: [android-adreno, x86-64-v3] # one library each; host is this machine

quality:
  samples: 3
  max_error: 0.2 # beyond it the build fails with exit code 5

budget:
  memory_mb: 400
  artifact_mb: 200

tuning:
  timeout_s: 1800
"""
"""A generic recipe with every field there is."""

_INTRODUCTION = """\
<!-- Made by `edgec schema generic --markdown` from compiler/edgec/recipe; change that, not this. -->

# Recipes of generic models

A recipe with `kind: generic` compiles a network that isn't a decoder of text: an encoder for
embeddings, an image classifier, the encoder of a speech model. How this works is told in
[Generic models](../generic.md); what holds for every recipe, `-s FIELD=VALUE` too, in
[Recipes](recipe.md).

## Example

"""

_AFTER_EXAMPLE = """
## Fields

A default of `-` is that of a section: when it is left out, its fields have theirs.

"""


def generic_reference() -> str:
    """The page, as Markdown."""
    return "".join(
        [
            _INTRODUCTION,
            f"```yaml\n{EXAMPLE}```\n",
            _AFTER_EXAMPLE,
            field_tables(generic_json_schema()),
        ]
    )
