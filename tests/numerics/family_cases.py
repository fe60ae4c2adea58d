"""All small models of which each family is proven, as the tests build them.

A test file that has some offers them by a function ``family_cases()``; that is all it takes to be in
the table of families (``benchmarks/families.py``).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerics.family_case import (
    check_chunks_then_decoding,
    check_every_position,
    check_ragged_batches,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_OFFERED = "\ndef family_cases("


@dataclass(frozen=True)
class FamilyCase:
    """A small random model of a family.

    Attributes:
        name: of the case in its test.
        family: file of the family.
        settings: fields of ``config.json`` that switch the model's features on.
        quantization: as ``tiny_models.build`` takes it.
        make: saves the model in a folder, builds it with the outputs of stages in another, for this
            CPU, and gives it beside its reference.
        prefill: compares prefills.
        decode: compare all else.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    quantization: Mapping[str, Any]
    make: Callable[[Path, Path], Any]
    prefill: Callable[[Any], None] = check_every_position
    decode: tuple[Callable[[Any], None], ...] = (check_chunks_then_decoding, check_ragged_batches)


def all_cases() -> list[FamilyCase]:
    """What all test files in this folder offer, by family and in the files' order."""
    files = [
        path.stem
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if _OFFERED in path.read_text("utf-8")
    ]
    modules = [importlib.import_module(f"numerics.{name}") for name in files]
    cases = [case for module in modules for case in module.family_cases()]
    return sorted(cases, key=lambda case: case.family)


def model_type(config: str) -> str:
    """The ``model_type`` of a class of transformers' configs."""
    import transformers  # noqa: PLC0415 - only these tests need it

    name: str = getattr(transformers, config).model_type
    return name
