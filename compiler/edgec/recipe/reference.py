"""The reference page of recipes; ``docs/reference/recipe.md`` holds it."""

from __future__ import annotations

from edgec.recipe.jsonschema import decoder_json_schema
from edgec.validation.reference import code, field_tables, table

EXAMPLE = """\
# yaml-language-server: $schema=../docs/schemas/recipe.schema.json
schema: edgec.recipe/v1
kind: decoder # the default
name: smollm2-135m # also the folder of the artifacts
description: SmolLM2 135M for x86 servers and desktops.

model:
  source: hf:HuggingFaceTB/SmolLM2-135M-Instruct@main # or a folder beside this file
  seed: 0 # of the random weights of a synthetic: source, else 0

context:
  length: 2048 # tokens; without it the model's own
  sliding_window: 512 # keep so many and go on without end; without it a context ends
  attention_sinks: 4 # the first tokens, which a window keeps always
  prefill_chunk: 512
  max_batch_size: 1
  kv_cache_dtype: int8 # auto: as the model computes keys and values

image:
  size: # pixels, of a model that takes images; 448 by default

quantization:
  scheme: q4f16_1
  method: rtn
  group_size: 32
  overrides: # the first that matches a parameter's name wins
    - match: model.embed_tokens.weight
      bits: 8
    - match: "model.layers.0.*" # text with a * needs quotes
      bits: 8
      group_size: 64

targets: [x86-64-v3, x86-64-v4] # one library each; host is this machine
exports: []

quality:
  text: evaluation/articles.txt # relative to this file
  tokens: 2000
  window: 256
  max_kl: 0.1 # beyond a limit the build fails with exit code 5
  min_top1: 0.85
  max_perplexity_ratio: 1.1

budget:
  memory_mb: 400
  artifact_mb: 200

chat:
  template: chatml # without it recognized from the tokenizer

generation:
  temperature: 0.7
  top_p: 0.95
  repetition_penalty: 1.0

tuning:
  timeout_s: 1800
"""
"""A recipe with every field there is."""

OVERRIDES = {
    "context.length=1024": "sets one field",
    "quantization.overrides.0.bits=16": "sets a field of a list's item; positions count from 0",
    "'quantization.overrides.2={match: \"*.o_proj.*\", bits: 8}'": (
        "adds an item: the position is one past the end; the shell needs the quotes"
    ),
    "targets=[host]": "replaces a whole list",
    "budget.memory_mb=null": "restores the default",
    "'quality={text: evaluation/news.txt}'": "replaces a whole section",
}
"""Arguments of ``-s`` as a shell takes them, and what they do to the example."""

_INTRODUCTION = """\
<!-- Made by `edgec schema recipe --markdown` from compiler/edgec/recipe; change that, not this. -->

# Recipes

A recipe says which model is built, how, and for which targets. It is one YAML file. `edgec recipes`
lists those that come with edgec; your own is named by its path: `edgec build my/recipe.yaml`.

- Every field is in the tables below. A field that isn't is an error, which names the line, the
  column and the field that was meant.
- A field that is left out, or left empty, has its default. Only `schema`, `name`, `model.source`,
  `quantization.scheme` and `targets` have none.
- Paths are relative to the recipe's file.
- The file is plain YAML 1.2: no tags, no anchors, no key twice, at most 1 MiB. `no` and `off` are
  text, `1e-3` is a number.
- The comment in the first line of the example makes editors with a YAML language server complete
  and check the fields; `edgec schema recipe` prints that schema.

## Example

"""

_OVERRIDE_RULES = """\
## Fields on the command line

`edgec build`, `plan` and `why` take `-s FIELD=VALUE` (`--set`), which changes a field for this call.
It may be repeated; the later one wins. FIELD is the path to the field with dots. VALUE is read as
YAML, so a text that looks like a number needs quotes of its own.

"""

_AFTER_OVERRIDES = """
The result is checked as if it stood in the file, and errors name the option. An artifact's manifest
lists the overrides it was built with.

## Fields

A default of `-` is that of a section: when it is left out, its fields have theirs.

"""


def recipe_reference() -> str:
    """The page, as Markdown."""
    rows = [(code(f"-s {option}"), effect) for option, effect in OVERRIDES.items()]
    return "".join(
        [
            _INTRODUCTION,
            f"```yaml\n{EXAMPLE}```\n\n",
            _OVERRIDE_RULES,
            table(("Option", "Effect on the example"), rows),
            _AFTER_OVERRIDES,
            field_tables(decoder_json_schema()),
        ]
    )
