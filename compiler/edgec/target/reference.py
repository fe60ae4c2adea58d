"""The reference page of target profiles; ``docs/reference/target.md`` holds it."""

from __future__ import annotations

from edgec.target.jsonschema import target_json_schema
from edgec.validation.reference import field_tables

EXAMPLE = """\
# yaml-language-server: $schema=../docs/schemas/target.schema.json
schema: edgec.target/v1
name: zen4 # the file is zen4.yaml
extends: x86-64-v4
description: AMD Zen 4, which adds dot products of bfloat16 to AVX-512.
tvm:
  mattr: [+avx512vnni, +avx512bf16] # replaces the list of x86-64-v4; mcpu stays
cpu_features: [avx512_bf16] # joins those of x86-64-v4
"""
"""A profile that extends one of ours."""

_INTRODUCTION = """\
<!-- Made by `edgec schema target --markdown` from compiler/edgec/target; change that, not this. -->

# Target profiles

A target profile describes a class of devices: how code is generated for it, how weights lie in its
memory, and what runs it when it is verified. It is one YAML file in `targets/`, named as the
target. `edgec targets` lists them and tells where the library of each is run when it is verified.

The name `host` is no file: it is the best CPU target whose features this machine has all of.

## Example

"""

_EXTENDS = """\
## What `extends` does

A profile extends at most one other, which may extend a third, and so on; a circle is an error.

| In the profile | Result |
| --- | --- |
| a field that it leaves out | comes from the profile that it extends |
| text, a number, a list | replaces the inherited one |
| a mapping (`tvm`, `library`, `limits`) | is merged key by key with the inherited one |
| a field or key set to `null` | takes the inherited one away |
| `cpu_features` | join the inherited ones; they can't be taken away |
| `schema`, `name`, `extends`, `abstract` | are each profile's own |

When everything is merged, a profile needs `platform`, `tvm` with a `kind`, `layout` and `standin`.
One with `abstract: true` may leave these open: it only serves to be extended and can't be built for.

`cpu_features` has to name every feature that `tvm` lets the compiler use. `host`, `run`, `bench` and
`verify` trust this list: where one is missing they say so, in place of a crash.

## Fields

Defaults hold where no profile of the chain gives the field; `-` is an empty mapping, or a key that
it doesn't have.

"""


def target_reference() -> str:
    """The page, as Markdown."""
    return "".join(
        [
            _INTRODUCTION,
            f"```yaml\n{EXAMPLE}```\n\n",
            _EXTENDS,
            field_tables(target_json_schema()),
        ]
    )
