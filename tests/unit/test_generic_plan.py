"""Plans of generic models: which field reruns what, what their files are, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgec.errors import CheckpointError, EdgecError
from edgec.pipeline.preview_generic import preview_generic
from edgec.pipeline.stage import digests
from edgec.pipeline.store import Store
from generic_models import CONFIGS, plan, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

ALL = {"checkpoint", "interface", "quantize", "import", "compile", "pack", "verify"}


def digest(
    folder: Path, *overrides: str, target: str = "x86-64-v3", **fields: Any
) -> dict[str, str]:
    built = plan(write_recipe(folder, "bert", **fields), target, folder / "cache", *overrides)
    return digests(built.stages)


@pytest.mark.parametrize(
    ("override", "rerun"),
    [
        ("quantization.scheme=q4f32_1", ALL - {"checkpoint"}),
        ("model.seed=1", ALL),
        ("dimensions.batch.max=2", ALL),
        ("task.normalize=false", ALL),
        ("quality.samples=3", {"verify"}),
        ("quality.max_error=0.5", set()),
        ("budget.memory_mb=500", set()),
        ("description=other", set()),
        ("tuning.timeout_s=99", set()),
        ("inputs.input_ids={range: [0, 9]}", {"verify"}),
    ],
)
def test_a_field_reruns_only_its_dependents(tmp_path: Path, override: str, rerun: set[str]) -> None:
    before, after = digest(tmp_path), digest(tmp_path, override)
    assert {name for name in ALL if before[name] != after[name]} == rerun


def test_targets_share_what_does_not_depend_on_them(tmp_path: Path) -> None:
    here = digest(tmp_path, target="x86-64-v3")
    there = digest(tmp_path, target="x86-64-v4")
    same = {name for name in ALL if here[name] == there[name]}
    assert same == {"checkpoint", "interface", "quantize", "import", "pack"}


def test_another_config_is_another_model(tmp_path: Path) -> None:
    before = digest(tmp_path)
    built = write_recipe(tmp_path, "bert")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    after = digests(plan(built, "x86-64-v3", tmp_path / "cache").stages)
    assert before["checkpoint"] != after["checkpoint"]


def test_where_a_model_lies_is_no_part_of_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_a_python_file_and_its_function_are_the_model(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def make(): ...\n")
    first = digest(tmp_path, model={"source": "torch:net.py:make"})
    other = digest(tmp_path, model={"source": "torch:net.py:other"})
    (tmp_path / "net.py").write_text("def make(): pass\n")
    edited = digest(tmp_path, model={"source": "torch:net.py:make"})
    assert len({first["checkpoint"], other["checkpoint"], edited["checkpoint"]}) == 3


@pytest.mark.parametrize("source", ["net.pt2", "torch:net.py:make"])
def test_a_file_that_is_missing(tmp_path: Path, source: str) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        digest(tmp_path, model={"source": source})


def test_a_config_that_is_missing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "bert")
    (tmp_path / "config.json").unlink()
    with pytest.raises(EdgecError, match=r"config\.json"):
        plan(recipe, "x86-64-v3", tmp_path / "cache")


def test_a_preview_before_the_model_is_imported(tmp_path: Path) -> None:
    assert set(CONFIGS) == {"bert", "vit", "resnet", "whisper"}
    built = plan(write_recipe(tmp_path, "bert"), "x86-64-v3", tmp_path / "cache")
    found = preview_generic(built, Store(tmp_path / "cache"))
    assert [stage.name for stage in found.diagnosis.stages if stage.stored] == []
    assert found.weights == ()
    assert found.bits_per_weight == 0.0


def test_targets_choose_the_floats(tmp_path: Path) -> None:
    built = plan(
        write_recipe(tmp_path, "bert"),
        "webgpu-f32",
        tmp_path / "cache",
        "quantization.scheme=q4f16_1",
    )
    assert built.loaded.recipe.quantization.scheme == "q4f32_1"
