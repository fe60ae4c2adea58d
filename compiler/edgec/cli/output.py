"""What is printed where: data on stdout, everything meant for people on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_LABEL_WIDTH = 10
_MINUTE = 60
_HOUR = 3600


def print_json(schema: str, data: Mapping[str, Any]) -> None:
    """Print one JSON object with sorted keys, ``schema`` before them."""
    click.echo(json.dumps(_ordered(schema, data), indent=2, ensure_ascii=False))


def print_json_line(data: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own, at once, for streams of events."""
    click.echo(json.dumps(data, ensure_ascii=False))
    sys.stdout.flush()


def _ordered(schema: str, data: Mapping[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = json.loads(json.dumps(dict(data), sort_keys=True))
    return {"schema": schema, **inner}


def colour() -> bool | None:
    """Whether text may be styled, as click takes it: no with NO_COLOR, else on a terminal only."""
    return False if os.environ.get("NO_COLOR") else None


def say(text: str) -> None:
    """Print a line for people on stderr; nothing with ``--quiet``."""
    if not settings().quiet:
        click.echo(text, err=True)


def print_error(text: str) -> None:
    """Print a line on stderr that says that something failed."""
    # The error may come when no command runs any more, and so no context says how to print.
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True, color=colour())


def console() -> Console:
    """A rich console on stderr: no colour with NO_COLOR, nothing live away from a terminal."""
    from rich.console import Console  # noqa: PLC0415 - takes 50 ms, and many commands print none

    return Console(stderr=True, highlight=False, quiet=settings().quiet)


def stdout_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as aligned columns on stdout; the headings in bold on a terminal.

    Args:
        columns: headings; one that begins with ``>`` is of a column aligned to the right.
        rows: cells; cells of the last column aren't padded.
    """
    titles = [title.removeprefix(">") for title in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    right = [title.startswith(">") for title in columns]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(cells, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    # click takes the codes away when stdout isn't a terminal.
    click.echo(click.style(line(titles), bold=True))
    for row in rows:
        click.echo(line(row))


def print_lines(lines: Sequence[tuple[str, str]]) -> None:
    """Print labels and their texts as two columns on stdout."""
    for label, text in lines:
        click.echo(f"{click.style(label.ljust(_LABEL_WIDTH), dim=True)}  {text}")


def format_bytes(count: float) -> str:
    """``"3.4 MiB"``: three digits at most, binary units."""
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    digits = 0 if unit == "B" or value >= 100 else 1
    return f"{value:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """``"0.42 s"``, ``"12.3 s"``, ``"3 min 05 s"``, ``"2 h 10 min"``; whole numbers ``"12 s"``."""
    if isinstance(seconds, int) and seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if round(seconds, 1) < _MINUTE else "1 min 00 s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


def format_count(count: int) -> str:
    """``"812"``, ``"5.8 M"``, ``"1.2 B"``: as numbers of weights are written."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)
