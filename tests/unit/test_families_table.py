"""The table of families has a row for each, with the length that its file has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgec.models.find import families

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table() -> ModuleType:
    benchmarks = ROOT / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(benchmarks))
        spec = importlib.util.spec_from_file_location("families_table", benchmarks / "families.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module


def rows(page: Path) -> dict[str, list[str]]:
    """The cells of the page's table by family."""
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in cells}


def test_every_family_has_a_row(table: ModuleType) -> None:
    assert list(rows(table.PAGE)) == families(), "run benchmarks/families.py --only FAMILY"


def test_lengths_are_those_of_the_files(table: ModuleType) -> None:
    folder = ROOT / "compiler/edgec/models"
    found = {family: int(row[table.LENGTH]) for family, row in rows(table.PAGE).items()}
    wanted = {name: len((folder / f"{name}.py").read_text().splitlines()) for name in found}
    assert found == wanted, "run benchmarks/families.py --refresh"


def test_every_row_is_whole(table: ModuleType) -> None:
    for family, row in rows(table.PAGE).items():
        errors = [float(cell) for cell in row[2:5] if cell]
        assert errors, family
        assert max(errors) <= 0.02, family
        agreeing, positions = map(int, row[5].split(" of "))
        assert 0.97 * positions <= agreeing <= positions, family


def test_rows_of_other_families_are_kept(table: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "families.md"
    page.write_text(
        "| `llama` | `head_dim` 64 | 1e-6 | 2e-6 |  | 9 of 9 | 7 | 5 s | 6 s |\n"
        "| `removed` | |  |  |  | 9 of 9 | 7 | 5 s | 6 s |\n"
    )
    kept = table.present_rows(page)
    length = table.lines_of("llama")
    assert kept == {
        "llama": f"| `llama` | `head_dim` 64 | 1e-6 | 2e-6 |  | 9 of 9 | {length} | 5 s | 6 s |"
    }


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.0, "0"), (1.1e-6, "2e-6"), (2e-6, "2e-6"), (7.3e-7, "1e-6"), (4.9e-12, "5e-12")],
)
def test_errors_are_rounded_up(table: ModuleType, error: float, text: str) -> None:
    assert table.rounded_up(error) == text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ([{"tie": True}], "`tie`"),
        ([{"tie": True}, {"tie": False}], "`tie` true and false"),
        ([{"rope": {"rope_type": "yarn", "factor": 4}}, {"heads": 2}], "`heads` 2, `rope` yarn"),
        ([{"factors": [1.0] * 12, "layers": [3]}], "`factors` (12 of them), `layers` [3]"),
    ],
)
def test_features_are_fields_with_their_values(
    table: ModuleType, settings: list[dict[str, Any]], text: str
) -> None:
    cases = [type("Case", (), {"settings": item}) for item in settings]
    assert table.features(cases) == text
