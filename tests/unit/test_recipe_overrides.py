from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_texts import MINIMAL, load, problem

from edgec.errors import UsageError
from edgec.recipe import Recipe, load_recipe
from edgec.yamlfile import dotted

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, so that messages show the short path that was given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_overrides_from_the_command_line() -> None:
    given_overrides = (
        "quantization.group_size=64",
        "quantization.overrides.0.bits=8",
        "quantization.overrides.0.match=lm_head.*",
        "targets=[x86-64-v3]",
        "model.source=hf:org/name@v1",
        "quantization.group_size=128",
    )
    loaded = load(MINIMAL, *given_overrides)
    assert loaded.overrides == given_overrides
    assert loaded.recipe.quantization.group_size == 128
    assert loaded.recipe.quantization.overrides[0].model_dump(exclude_none=True) == {
        "match": "lm_head.*",
        "bits": 8,
    }
    assert loaded.recipe.targets == ("x86-64-v3",)
    assert loaded.recipe.model.source == "hf:org/name@v1"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "quantization.groupsize=64",
            (
                "-s quantization.groupsize=64: there is no field quantization.groupsize; did you mean "
                "group_size? (the fields of quantization are scheme, method, group_size and overrides)"
            ),
        ),
        (
            "group_size=64",
            "-s group_size=64: there is no field group_size; did you mean quantization.group_size?",
        ),
        (
            "context.length.x=3",
            (
                "-s context.length.x=3: there is no field context.length.x; "
                "context.length is a single value, set it with -s context.length=VALUE"
            ),
        ),
        (
            "name",
            "-s name: no field is set; write FIELD=VALUE, for example -s context.length=2048",
        ),
        (
            "targets.one=host",
            (
                "-s targets.one=host: targets is a list, and 'one' isn't a position in it; "
                "count from 0, for example targets.0"
            ),
        ),
        (
            "targets.2=host",
            (
                "-s targets.2=host: targets has no item 2, its last item is targets.0; "
                "use targets.1 to add one"
            ),
        ),
        (
            "quantization.group_size=47",
            (
                "-s quantization.group_size=47: quantization.group_size: 47 is not a multiple of 8; "
                "write 40 or 48"
            ),
        ),
        (
            "quantization.overrides.0.bits=8",
            (
                "-s quantization.overrides.0.bits=8: quantization.overrides.0.match: "
                "this field is missing; add 'match: \"model.layers.0.*\"'"
            ),
        ),
        (
            "targets=[host",
            "-s targets=[host: a list that starts with '[' isn't closed; add the missing ',' or ']'",
        ),
    ],
)
def test_wrong_overrides_name_the_option(override: str, expected: str) -> None:
    assert problem(MINIMAL, override) == expected


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        ("context: 5", "context.length=3", "context isn't a mapping in the recipe; correct it"),
        ("exports: x", "exports.0=y", "exports isn't a list in the recipe; correct it there"),
    ],
)
def test_an_override_does_not_hide_what_is_wrong_in_the_file(
    text: str, override: str, expected: str
) -> None:
    assert expected in problem(f"{MINIMAL}{text}\n", override)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list) and value:
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [(dotted(path), value)]


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
GROUPS = st.integers(1, 512).map(lambda n: 8 * n)
CHUNKS = st.integers(1, 2048)
RECIPES = st.fixed_dictionaries(
    {
        "schema": st.just("edgec.recipe/v1"),
        "name": NAMES,
        "description": st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)),
        "model": st.fixed_dictionaries(
            {"source": NAMES.map(lambda name: f"synthetic:{name}.json"), "seed": st.integers(0, 99)}
        ),
        "context": CHUNKS.map(lambda n: {"length": 2 * n, "prefill_chunk": n}),
        "quantization": st.fixed_dictionaries(
            {
                "scheme": st.sampled_from(["q4f16_1", "q4f32_1", "q8f16_1", "q8f32_1"]),
                "group_size": GROUPS,
                "overrides": st.lists(
                    st.fixed_dictionaries(
                        {"match": NAMES, "bits": st.sampled_from([4, 8]), "group_size": GROUPS}
                    ),
                    unique_by=lambda override: override["match"],
                    max_size=3,
                ),
            }
        ),
        "targets": st.lists(
            st.sampled_from(["host", "x86-64-v3", "x86-64-v4"]), min_size=1, unique=True
        ),
        "generation": st.fixed_dictionaries({"temperature": st.floats(0, 2)}),
    }
)


@settings(deadline=None)
@given(RECIPES)
def test_overrides_alone_make_a_recipe(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    """Each field set by its own ``-s``, on an empty file, gives what one document gives."""
    path = tmp_path_factory.getbasetemp() / "empty.yaml"
    path.write_text("")
    overrides = [f"{name}={json.dumps(value)}" for name, value in leaves(data)]
    recipe = load_recipe(path, overrides).recipe
    assert recipe == Recipe.model_validate(data)
    assert Recipe.model_validate(recipe.model_dump(by_alias=True)) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe


KEYS = st.sampled_from(["match", "bits", "text", "length", "source", "scheme", "a.b", "", "é"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["", "x", "host", "q0f32", 0, 1, -1, 8, 64, 0.5, True, 2**62, "1", "hf:a/b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        *Recipe.model_fields,
        *(
            f"{a}.{b}"
            for a, f in Recipe.model_fields.items()
            for b in getattr(f.annotation, "model_fields", ())
        ),
        "quantization.overrides.0",
        "quantization.overrides.0.match",
        "targets.0",
        "targets.1",
        "nothing",
        "",
    ]
)


@settings(deadline=None)
@given(st.lists(st.tuples(FIELDS, VALUES), max_size=3))
def test_any_override_gives_a_recipe_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "minimal.yaml"
    path.write_text(MINIMAL)
    overrides = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in changes]
    try:
        recipe = load_recipe(path, overrides).recipe
    except UsageError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1 or all(line.startswith("  ") for line in lines[1:])
    else:
        assert Recipe.model_validate(recipe.model_dump(by_alias=True)) == recipe
