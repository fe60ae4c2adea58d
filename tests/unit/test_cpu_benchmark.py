"""What the comparison of CPU engines makes of its measurements."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "benchmarks" / "cpu"


def load(name: str, folder: Path = FOLDER) -> ModuleType:
    """A module of the benchmark, which is no package."""
    with pytest.MonkeyPatch.context() as patch:
        spec = importlib.util.spec_from_file_location(f"cpu_{name}", folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module


figures = load("figures")
steps = load("steps")
PREFILL = figures.Test("pp128", 128)
DECODE = figures.Test("tg64", 8, 64)


def result(name: str, **given: Any) -> Any:
    return figures.Result(name, **given)


def cells(lines: list[str]) -> list[list[str]]:
    """A table's rows without the line below its header."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def test_rates_count_the_tokens_that_are_timed() -> None:
    found = result("a", seconds={"pp128": [1.0, 0.5, 2.0], "tg64": [4.0]})
    assert found.rate(PREFILL) == figures.Spread(64, 128, 256)
    assert found.rate(DECODE) == figures.Spread(16, 16, 16)
    assert result("b").rate(PREFILL) is None


def test_speeds_are_smallest_middle_largest() -> None:
    found = result("a", seconds={"tg64": [4.0, 2.0, 1.0]})
    rows = cells(figures.speed_table([found, result("b", failure="no memory")], [PREFILL, DECODE]))
    assert rows[0][1:] == ["pp128", "tg64"]
    assert rows[1] == ["a", "-", "16.0/32.0/64.0"]
    assert rows[2] == ["b", "-", "-"]


def test_a_ratio_over_one_says_that_ours_is_faster() -> None:
    ours = result("ours", seconds={"tg64": [2.0], "pp128": [1.0]})
    peer = result("peer", seconds={"tg64": [5.0]})
    rows = cells(figures.ratio_table(ours, [peer, result("none")], [PREFILL, DECODE]))
    assert rows[1:] == [["ours / peer", "-", "2.50"]]


def test_the_limit_is_what_memory_reads_over_what_a_token_reads() -> None:
    found = result("a", token_bytes=500_000_000, seconds={"tg64": [64 / 20]})
    limits = {"huge pages": [10e9, 20e9, 30e9], "4 KiB pages": [16e9], "none": []}
    rows = cells(figures.limit_table([found, result("b")], [PREFILL, DECODE], limits))
    assert len(rows) == 2
    assert rows[1] == ["a", "500", "40.0", "50 %", "32.0", "62 %"]


def test_costs_name_memory_over_the_file() -> None:
    ours = result("a", load=0.5, start=1.25, file_bytes=700e6, peak=770e6, logits=[1.0, 0.0])
    peer = result("b", load=2.0, start=3.0, file_bytes=700e6, peak=1400e6, logits=[3.0, 3.0])
    unopened = result("c", failure="it can't be installed")
    rows = cells(figures.cost_table([ours, peer, unopened], ours))
    assert rows[1] == ["a", "0.50", "1.25", "700", "770", "1.10", "1.000"]
    assert rows[2] == ["b", "2.00", "3.00", "700", "1400", "2.00", "0.707"]
    assert len(rows) == 3
    assert figures.failures([ours, unopened]) == ["c: it can't be installed"]


def test_agreement_needs_both_and_a_length() -> None:
    assert figures.agreement([1.0], None) is None
    assert figures.agreement([0.0, 0.0], [1.0, 2.0]) == 0
    assert figures.agreement([1.0, 2.0], [-2.0, -4.0]) == pytest.approx(-1)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        figures.agreement([1.0, 2.0], [1.0])


def test_an_empty_table_prints_nothing() -> None:
    assert figures.table(["a", "b"], []) == []


def test_a_step_is_done_once(tmp_path: Path) -> None:
    done: list[Path] = []

    def work(place: Path) -> None:
        done.append(place)
        place.write_text("whole")

    for _ in range(2):
        assert steps.make(tmp_path / "model", "making", work).read_text() == "whole"
    assert len(done) == 1
    assert done[0].name != "model"


@pytest.mark.parametrize("movable", [True, False])
def test_a_step_that_fails_begins_again(tmp_path: Path, *, movable: bool) -> None:
    def fails(place: Path) -> None:
        place.mkdir()
        (place / "half").touch()
        raise steps.StepError("no space")

    def works(place: Path) -> None:
        place.mkdir()

    target = tmp_path / "folder"
    with pytest.raises(steps.StepError, match="no space"):
        steps.make(target, "making", fails, movable=movable)
    assert steps.make(target, "making", works, movable=movable) == target
    assert list(target.iterdir()) == []


def test_a_program_that_fails_is_named_by_its_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "print('ERROR: no such package'); print('good bye'); raise SystemExit(3)"
    with pytest.raises(steps.StepError, match="ERROR: no such package"):
        steps.run([sys.executable, "-c", code], log)
    assert steps.reason("", 3) == "exit status 3"
    assert steps.reason("first\nlast\n\n", 1) == "last"
