"""The reference pages: in sync, complete, and with examples that work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_calls import call

from edgec import resources, yamlfile
from edgec.recipe import load_recipe
from edgec.recipe import reference as recipe_pages
from edgec.recipe import reference_generic as generic_pages
from edgec.recipe.jsonschema import decoder_json_schema, generic_json_schema
from edgec.target import load_target
from edgec.target import reference as target_pages
from edgec.target.jsonschema import target_json_schema
from edgec.validation.messages import flow
from edgec.validation.reference import field_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs" / "reference"
PAGES = {
    "recipe": recipe_pages.recipe_reference,
    "generic": generic_pages.generic_reference,
    "target": target_pages.target_reference,
}
SCHEMAS = {
    "recipe": decoder_json_schema,
    "generic": generic_json_schema,
    "target": target_json_schema,
}
EXAMPLES = {
    "recipe": recipe_pages.EXAMPLE,
    "generic": generic_pages.EXAMPLE,
    "target": target_pages.EXAMPLE,
}
BOTH = pytest.mark.parametrize("kind", list(PAGES))
BAR = re.compile(r"(?<!\\)\|")


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The heading under which each field stands, its name and its schema."""
    for name, field in schema.get("properties", {}).items():
        yield path, name, field
        yield from fields(field, f"{path}.{name}".lstrip("."))
        yield from fields(field.get("items", {}), f"{path}.{name}[]".lstrip("."))
        for value in field.get("patternProperties", {}).values():
            yield from fields(value, f"{path}.{name}".lstrip("."))


def rows(page: str) -> dict[tuple[str, str], list[str]]:
    """The cells of each field's row, by heading and field; ``[]`` stands for the items of a list."""
    found, heading = {}, ""
    for line in page.split("\n## Fields\n")[1].splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ")
            heading = "" if title == "Top level" else title.split("`")[1]
            heading += "[]" if title.endswith(", each item") else ""
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in BAR.split(line)[1:-1]]
            found[heading, cells[0].strip("`")] = cells
    return found


@BOTH
def test_the_committed_page_is_in_sync(kind: str) -> None:
    committed = (DOCS / f"{kind}.md").read_text(encoding="utf-8")
    assert committed == PAGES[kind](), (
        f"run: edgec schema {kind} --markdown > docs/reference/{kind}.md"
    )


@BOTH
def test_every_field_has_its_row(kind: str) -> None:
    table = rows(PAGES[kind]())
    wanted = {(path, name): field for path, name, field in fields(SCHEMAS[kind]())}
    assert set(table) == set(wanted)
    for place, field in wanted.items():
        cells = table[place]
        assert len(cells) == 5, place
        assert all(cells), place
        assert cells[3] == field["description"].replace("|", r"\|")


@BOTH
def test_examples_in_the_tables_are_yaml_for_the_value(kind: str) -> None:
    for path, name, field in fields(SCHEMAS[kind]()):
        for example in field["examples"]:
            assert yamlfile.parse(flow(example), "example").data == example, (path, name)


@BOTH
def test_links_lead_to_headings(kind: str) -> None:
    page = PAGES[kind]()
    anchors = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("#")
    }
    links = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert links
    assert links <= anchors


@pytest.mark.parametrize(
    ("field", "words", "default"),
    [
        (("", "schema"), "`edgec.recipe/v1`", "**required**"),
        (("", "description"), "text (at most 2000 characters)", "none"),
        (("", "targets"), "list (1 to 100 items; none twice) of text", "**required**"),
        (("", "context"), "mapping, see [`context`](#context)", "-"),
        (("context", "length"), "whole number (1 to 16777216)", "none"),
        (
            ("quantization", "group_size"),
            "whole number (8 to 4096; a multiple of 8)",
            "`32`",
        ),
        (("quantization.overrides[]", "bits"), "one of `4`, `8`, `16`", "**required**"),
        (("quality", "min_top1"), "number (above 0, at most 1)", "none"),
        (("budget", "memory_mb"), "whole number (at least 1)", "none"),
    ],
)
def test_types_and_defaults_in_words(field: tuple[str, str], words: str, default: str) -> None:
    assert rows(PAGES["recipe"]())[field][1:3] == [words, default]


def test_types_that_only_targets_have() -> None:
    table = rows(PAGES["target"]())
    assert table["", "limits"][1] == "mapping, each value: whole number (at least 0)"
    assert table["", "tvm"][1] == "mapping, see [`tvm`](#tvm); it may have other keys"
    assert table["", "abstract"][1:3] == ["true or false", "`false`"]
    assert table["tvm", "mattr"][1].startswith("list of text (matches `^")


def test_bars_do_not_break_a_table() -> None:
    field = {"type": "string", "pattern": "^(a|b)$", "description": "a | b.", "examples": ["a|b"]}
    line = field_tables({"properties": {"x": field}}).splitlines()[-1]
    assert len(BAR.split(line)) == 7


@BOTH
def test_the_example_is_on_the_page(kind: str) -> None:
    assert f"```yaml\n{EXAMPLES[kind]}```" in PAGES[kind]()


def test_the_example_recipe_is_accepted_and_shows_every_field(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(recipe_pages.EXAMPLE, encoding="utf-8")
    data: Any = load_recipe(path).document.data
    for place, name, _ in fields(decoder_json_schema()):
        section = data
        for key in place.replace("[]", ".1").split(".") if place else ():
            section = section[int(key)] if key.isdecimal() else section[key]
        assert name in section, (place, name)


@pytest.mark.parametrize("option", recipe_pages.OVERRIDES)
def test_overrides_on_the_page_change_the_example(option: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(recipe_pages.EXAMPLE, encoding="utf-8")
    (override,) = shlex.split(option)
    assert load_recipe(path, [override]).recipe != load_recipe(path).recipe
    assert f"| `-s {option}` |" in PAGES["recipe"]()


def test_the_example_target_extends_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_target("x86-64-v4")
    ours = resources.folder("targets")
    for path in [*ours.glob("*.yaml")]:
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "zen4.yaml").write_text(target_pages.EXAMPLE, encoding="utf-8")
    monkeypatch.setattr(resources, "folder", lambda _name: tmp_path)
    target = load_target("zen4")
    assert target.tvm == {**base.tvm, "mattr": ["+avx512vnni", "+avx512bf16"]}
    assert set(target.cpu_features) == {*base.cpu_features, "avx512_bf16"}
    assert target.vector_bits == base.vector_bits


@BOTH
def test_the_command_prints_the_page(kind: str) -> None:
    assert call("schema", kind, "--markdown").out == PAGES[kind]()


def test_the_command_writes_pages_in_place_of_schemas(tmp_path: Path) -> None:
    called = call("schema", "--markdown", "--write", str(tmp_path))
    assert called.out.split() == [str(tmp_path / f"{kind}.md") for kind in PAGES]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{kind}.md" for kind in PAGES
    )
    assert (tmp_path / "target.md").read_text(encoding="utf-8") == PAGES["target"]()


def test_a_page_is_no_json() -> None:
    called = call("schema", "recipe", "--markdown", "--json")
    assert called.code == 2
    assert "leave out --markdown or --json" in called.err
