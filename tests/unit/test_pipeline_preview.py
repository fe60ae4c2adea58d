"""Sizes of a build in advance, on a family made up for the test: TVM isn't loaded."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgec.artifacts.layout import LIBRARY_FACTS
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.parameters import Parameter, Source
from edgec.models.rope import Rope
from edgec.pipeline import preview as module
from edgec.pipeline.diagnose import Diagnosis, StageDiagnosis
from edgec.pipeline.preview import Preview, preview
from edgec.recipe import load_recipe
from recipe_texts import recipe_text

PARAMETERS = [
    Parameter("embed.weight", (100, 64), "embedding", (Source("e", (100, 64)),)),
    Parameter("layer.weight", (64, 64), "linear", (Source("l", (64, 64)),)),
    Parameter("norm.weight", (64,), "norm", (Source("n", (64,)),)),
]


@dataclass
class FakeStore:
    stored: dict[str, Path]

    def lookup(self, name: str, digest: str) -> Any:
        return SimpleNamespace(out=self.stored[name]) if name in self.stored else None
