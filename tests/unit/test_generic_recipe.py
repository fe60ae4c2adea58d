"""Recipes of generic models: which model checks them, what they refuse, and their schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipe_texts import MINIMAL

from edgec import resources
from edgec.errors import UsageError
from edgec.recipe import (
    GenericRecipe,
    LoadedGeneric,
    LoadedRecipe,
    Recipe,
    find_recipe,
    list_recipes,
    load_any_recipe,
    load_recipe,
)
from edgec.recipe import reference_generic as pages
from edgec.recipe.jsonschema import generic_json_schema, recipe_json_schema

GENERIC = """\
schema: edgec.recipe/v1
kind: generic
name: small
model: {source: small.onnx}
quantization: {scheme: q0f32}
targets: [host]
"""


def load(text: str, *overrides: str, synthetic: bool = False) -> LoadedRecipe | LoadedGeneric:
    path = Path("r.yaml")
    path.write_text(text, encoding="utf-8")
    return load_any_recipe(path, overrides, synthetic=synthetic)


def problem(text: str, *overrides: str, synthetic: bool = False) -> str:
    with pytest.raises(UsageError) as caught:
        load(text, *overrides, synthetic=synthetic)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_kind_chooses_the_fields() -> None:
    assert isinstance(load(GENERIC).recipe, GenericRecipe)
    assert isinstance(load(MINIMAL).recipe, Recipe)
    assert isinstance(load(MINIMAL + "kind: decoder\n").recipe, Recipe)


def test_what_needs_a_decoder_refuses_a_generic_recipe() -> None:
    load(GENERIC)
    with pytest.raises(UsageError, match=r"needs a decoder of text.*generic"):
        load_recipe(Path("r.yaml"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("context: {length: 8}", "context: unknown field"),
        ("chat: {template: chatml}", "chat: unknown field"),
        ("task: {kind: ocr}", "task.kind: 'ocr' isn't one of the accepted values"),
        ("task: {kind: embedding, pooling: max}", "task.pooling: 'max' isn't one of"),
        ("dimensions: {batch: {max: 0}}", "dimensions.batch.max: 0 is too small"),
        ("dimensions: {batch: 8}", "dimensions.batch: 8 is given, and a mapping"),
        ("inputs: {x: {shape: [batch, 3]}}", "how large 'batch' can get isn't said"),
        ("inputs: {x: {dtype: complex64}}", "inputs.x.dtype: 'complex64' isn't one of"),
        ("inputs: {x: {range: [1, 1]}}", "inputs.x.range: the first isn't below the second"),
        ("inputs: {x: {dtype: int32}}", "a type needs the shape beside it"),
        ("quality: {max_error: 0}", "quality.max_error: 0 is too small"),
    ],
)
def test_what_a_generic_recipe_refuses(line: str, message: str) -> None:
    assert message in problem(f"{GENERIC}{line}\n")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("hf:a/b@main", "hub"),
        ("folder", "folder"),
        ("nets/x.onnx", "onnx"),
        ("x.pt2", "exported"),
        ("torch:nets/x.py:make", "torch"),
        ("synthetic:config.json", "synthetic"),
    ],
)
def test_sources(source: str, kind: str) -> None:
    from edgec.recipe import parse_generic_source  # noqa: PLC0415

    recipe = load(GENERIC.replace("small.onnx", source)).recipe
    assert parse_generic_source(recipe.model.source).kind == kind


@pytest.mark.parametrize("source", ["torch:x.py", "torch:x.pyc:make", "torch:x.py:no-name"])
def test_a_torch_source_names_a_function(source: str) -> None:
    message = problem(GENERIC.replace("small.onnx", source))
    assert "doesn't name a function of a Python file; write torch:FILE.py:FUNCTION" in message


def test_a_decoder_takes_no_torch_source() -> None:
    assert "the prefix torch: is unknown" in problem(
        MINIMAL.replace("source: small", "source: 'torch:x.py:make'")
    )


def test_a_seed_is_for_random_weights() -> None:
    assert "a seed has no effect" in problem(GENERIC, "model.seed=3")
    assert load(GENERIC, "model.seed=3", "model.source=synthetic:c.json").recipe.model.seed == 3


def test_random_weights() -> None:
    assert "brings its own weights" in problem(GENERIC, synthetic=True)
    Path("net").mkdir()
    Path("net/config.json").write_text("{}")
    text = GENERIC.replace("small.onnx", "net") + "quality: {max_error: 0.1}\n"
    loaded = load(text, synthetic=True)
    assert loaded.recipe.model.source == "synthetic:net/config.json"
    assert isinstance(loaded, LoadedGeneric)
    assert loaded.recipe.quality.max_error is None


def test_overrides_reach_names_that_a_recipe_chose() -> None:
    text = GENERIC + "dimensions: {batch: {max: 2}}\n"
    loaded = load(text, "dimensions.batch.max=5", "task={kind: embedding}")
    assert isinstance(loaded, LoadedGeneric)
    assert loaded.recipe.dimensions["batch"].max == 5
    assert loaded.recipe.task is not None
    assert "there is no field context" in problem(text, "context.length=3")


def test_the_schema_tells_the_kinds_apart() -> None:
    schema: dict[str, Any] = recipe_json_schema()
    assert schema["if"]["properties"]["kind"] == {"const": "generic"}
    assert "task" in schema["then"]["properties"]
    assert "context" in schema["else"]["properties"]
    for branch in ("then", "else"):
        assert schema[branch]["additionalProperties"] is False


def test_the_example_shows_every_field() -> None:
    loaded = load(pages.EXAMPLE)
    assert isinstance(loaded, LoadedGeneric)
    data: Any = loaded.document.data
    schema = generic_json_schema()
    assert set(schema["properties"]) == set(data)
    for name, field in schema["properties"].items():
        inner = field.get("properties")
        for value in field.get("patternProperties", {}).values():
            used = {key for item in data[name].values() for key in item}
            assert set(value["properties"]) == used, name
        if inner:
            assert set(inner) == set(data[name]), name


def test_the_recipes_that_come_with_edgec() -> None:
    loaded = {name: load_any_recipe(find_recipe(name)) for name in list_recipes()}
    generic = {name for name, item in loaded.items() if isinstance(item, LoadedGeneric)}
    assert {"minilm-l6", "whisper-base-encoder"} <= generic
    for name in generic:
        assert (resources.folder("recipes") / name / "config.json").is_file()
