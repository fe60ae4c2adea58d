"""Which stages a change makes run again: exactly those that depend on it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from edgec import resources
from edgec.pipeline.filedigests import FileDigests
from edgec.pipeline.plan import plan_build
from edgec.pipeline.stage import digests
from edgec.pipeline.store import Store
from edgec.recipe import load_recipe
from edgec.target import load_target

if TYPE_CHECKING:
    from pathlib import Path

ALL = {"chat", "checkpoint", "quantize", "import", "compile", "pack", "verify"}


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    source = resources.folder("recipes")
    shutil.copyfile(source / "tinypy.yaml", folder / "tinypy.yaml")
    shutil.copytree(source / "tinypy", folder / "tinypy")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    store.prepare()
    return store


def _digests(
    recipes: Path, store: Store, *overrides: str, target: str = "x86-64-v3", verify: bool = True
) -> dict[str, str]:
    loaded = load_recipe(recipes / "tinypy.yaml", overrides)
    plan = plan_build(loaded, load_target(target), FileDigests(store), verify=verify)
    return digests(plan.stages)


@pytest.mark.parametrize(
    ("override", "rerun"),
    [
        ("quantization.scheme=q4f16_1", ALL - {"checkpoint"}),
        ("quantization.group_size=64", ALL - {"chat", "checkpoint"}),
        ("context.length=512", {"chat", "compile", "verify"}),
        ("context.prefill_chunk=128", {"chat", "compile", "verify"}),
        ("context.max_batch_size=2", {"chat", "compile", "verify"}),
        ("context.sliding_window=300", {"chat", "compile", "verify"}),
        ("context.kv_cache_dtype=int8", {"compile", "verify"}),
        ("context.kv_cache_dtype=auto", set()),
        ("quality.tokens=500", {"verify"}),
        ("quality.window=128", {"verify"}),
        ("quality.max_kl=0.5", set()),
        ("budget.memory_mb=500", set()),
        ("generation.temperature=0.1", {"chat"}),
        ("chat.template=chatml", {"chat"}),
        ("description=other", set()),
        ("tuning.timeout_s=99", set()),
    ],
)
def test_a_field_reruns_only_its_dependents(
    recipes: Path, store: Store, override: str, rerun: set[str]
) -> None:
    before = _digests(recipes, store)
    after = _digests(recipes, store, override)
    assert set(before) == ALL
    assert {name for name in ALL if before[name] != after[name]} == rerun


def test_another_target_shares_the_model_and_its_quantization(recipes: Path, store: Store) -> None:
    before = _digests(recipes, store)
    after = _digests(recipes, store, target="x86-64-v4")
    assert {name for name in ALL if before[name] != after[name]} == {"compile", "verify"}


def test_other_weights_rerun_everything(recipes: Path, store: Store) -> None:
    before = _digests(recipes, store)
    path = recipes / "tinypy" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    after = _digests(recipes, store)
    assert {name for name in ALL if before[name] != after[name]} == ALL


def test_the_place_of_the_model_does_not_matter(
    recipes: Path, store: Store, tmp_path: Path
) -> None:
    before = _digests(recipes, store)
    moved = tmp_path / "elsewhere"
    shutil.copytree(recipes, moved)
    assert _digests(moved, store) == before


def test_evaluation_text_only_reruns_the_verification(recipes: Path, store: Store) -> None:
    before = _digests(recipes, store)
    listing = recipes / "tinypy" / "eval_modules.txt"
    listing.write_text("shlex.py\n")
    after = _digests(recipes, store)
    assert {name for name in ALL if before[name] != after[name]} == {"verify"}


def test_without_verification_there_is_no_such_stage(recipes: Path, store: Store) -> None:
    before = _digests(recipes, store)
    after = _digests(recipes, store, verify=False)
    assert set(after) == ALL - {"verify"}
    assert all(before[name] == digest for name, digest in after.items())
