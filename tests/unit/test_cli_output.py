import json
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.cli.output import (
    console,
    format_bytes,
    format_count,
    format_seconds,
    print_json,
    stdout_table,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (3_634_472, "3.5 MiB"),
        (100 << 20, "100 MiB"),
        (1023 << 20, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 10**15))
def test_format_bytes_tells_the_size(count: int) -> None:
    number, unit = format_bytes(count).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert math.isclose(float(number) * scale, count, rel_tol=0.06, abs_tol=0.5)
    assert len(number) <= 4 or unit == "TiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.42, "0.42 s"),
        (1.0, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (60.0, "1 min 00 s"),
        (185.4, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800.0, "2 h 10 min"),
        (5, "5 s"),
        (75, "1 min 15 s"),
    ],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(812, "812"), (3300, "3.3 k"), (5_791_232, "5.8 M"), (1_235_814_400, "1.2 B")],
)
def test_format_count(count: int, text: str) -> None:
    assert format_count(count) == text


def _printed(action: Callable[..., None], *args: object) -> str:
    out = StringIO()
    with redirect_stdout(out):
        action(*args)
    return out.getvalue()


def test_print_json_puts_the_schema_first_and_sorts_the_rest() -> None:
    text = _printed(print_json, "edgec.x/v1", {"b": {"z": 1, "a": "é"}, "a": 2})
    assert list(json.loads(text)) == ["schema", "a", "b"]
    assert list(json.loads(text)["b"]) == ["a", "z"]
    assert "é" in text


def test_a_table_is_aligned() -> None:
    rows = [("a", "1", "x"), ("long name", "1000", "")]
    assert _printed(stdout_table, ("NAME", ">SIZE", "NOTE"), rows).splitlines() == [
        "NAME       SIZE  NOTE",
        "a             1  x",
        "long name  1000",
    ]


def test_a_table_without_rows_is_its_heading() -> None:
    assert _printed(stdout_table, ("NAME", "SIZE"), []) == "NAME  SIZE\n"


def test_the_console_is_plain_away_from_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    screen = console()
    assert not screen.is_terminal
    screen.print("[bold red]text[/] 12")
    captured = capsys.readouterr()
    assert captured.err == "text 12\n"
    assert captured.out == ""
