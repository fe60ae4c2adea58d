import json
from pathlib import Path

import pytest
from cli_calls import call

from edgec.recipe import list_recipes
from edgec.target import list_targets, summary


def test_recipes() -> None:
    head, *rows = call("recipes").out.splitlines()
    assert head.split() == ["NAME", "MODEL", "SCHEME", "TARGETS", "DESCRIPTION"]
    assert [row.split()[0] for row in rows] == list_recipes()
    data = call("recipes", "--json").data
    tinypy = next(item for item in data["recipes"] if item["name"] == "tinypy")
    assert tinypy["scheme"] == "q4f32_1"
    assert tinypy["targets"] == ["host"]
    assert Path(tinypy["path"]).is_file()


def test_targets() -> None:
    called = call("targets")
    assert called.err == ""
    rows = {row.split()[0]: row for row in called.out.splitlines()[1:]}
    assert list(rows) == list_targets(abstract=True)
    assert "(abstract)" in rows["x86-64"]
    data = {item["name"]: item for item in call("targets", "--json").data["targets"]}
    assert data["x86-64-v4"]["extends"] == "x86-64-v3"
    for name, item in data.items():
        missing = ", ".join(item["missing"] or [])
        assert not missing or f"not here: lacks {missing}" in rows[name]


def test_the_host_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "resolve_host", lambda: "x86-64-v3")
    monkeypatch.setattr(summary, "missing_features", lambda _target: [])
    rows = call("targets").out.splitlines()
    assert [row.split()[0] for row in rows if row.split()[1] == "*"] == ["x86-64-v3"]


@pytest.mark.parametrize("kind", ["recipe", "target"])
def test_schema(kind: str) -> None:
    called = call("schema", kind)
    assert json.loads(called.out)["title"].startswith(f"edgec {kind}")
    assert call("schema", kind, "--json").out == called.out


def test_schemas_are_written(tmp_path: Path) -> None:
    called = call("schema", "--write", str(tmp_path / "new"))
    paths = [tmp_path / "new" / f"{kind}.schema.json" for kind in ("recipe", "generic", "target")]
    assert called.out.split() == [str(path) for path in paths]
    assert paths[0].read_text() == call("schema", "recipe").out
    one = call("schema", "target", "--write", str(tmp_path), "--json").data
    assert one["files"] == [str(tmp_path / "target.schema.json")]
    assert not (tmp_path / "recipe.schema.json").exists()


def test_schemas_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    called = call("schema", "--write", str(tmp_path / "file" / "below"))
    assert called.code == 1
    assert "can't be written" in called.err


def test_a_schema_has_to_be_named() -> None:
    called = call("schema")
    assert called.code == 2
    assert called.err == (
        "error: edgec schema: no schema is named; add recipe or generic or target, or --write DIR\n"
    )
