"""The stages that run, live on a terminal; those that ended scroll away above."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from edgec.cli.board import Board, Row
from edgec.cli.output import format_seconds
from edgec.pipeline.events import Event, StageFinished, StageStarted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_NAME_WIDTH = 10
_AGE_WIDTH = 4
_BAR_WIDTH = 24
_PER_SECOND = 10


class LiveReporter:
    """Shows a build's events on a terminal.

    Args:
        console: on stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Board()
        self._lock = threading.Lock()
        self._any_ran = False
        self._spinners: dict[str, Spinner] = {}
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=_PER_SECOND,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> LiveReporter:  # noqa: PYI034 - Self needs Python 3.11
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take an event in; the display follows within a tenth of a second."""
        lines: list[Text] = []
        with self._lock:
            self._board.update(event)
            self._any_ran = self._any_ran or isinstance(event, StageStarted)
            if self._any_ran and self._board.hits:
                names = "  ".join(self._board.hits)
                lines.append(Text.assemble(("✓ ", "dim green"), (f"{names}  cached", "dim")))
                self._board.hits.clear()
            if isinstance(event, StageFinished):
                self._spinners.pop(event.name, None)
                name = event.name.ljust(_NAME_WIDTH)
                seconds = format_seconds(event.seconds)
                lines.append(Text.assemble(("✓ ", "green"), name, ("  " + seconds, "dim")))
        # Not under the lock: printing draws the display, which takes it.
        for line in lines:
            self._console.print(line)

    def _render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(min_width=1)
        grid.add_column(min_width=_NAME_WIDTH, no_wrap=True)
        grid.add_column(min_width=_AGE_WIDTH, no_wrap=True, justify="right")
        grid.add_column(no_wrap=True, overflow="ellipsis")
        now = time.monotonic()
        with self._lock:
            for row in self._board.rows.values():
                spinner = self._spinners.setdefault(row.name, Spinner("dots", style="cyan"))
                age = Text(format_seconds(int(now - row.since)), style="dim")
                grid.add_row(spinner, row.name, age, _work(row))
        return grid


def _work(row: Row) -> Text:
    if not row.total:
        return Text(row.note, style="dim")
    filled = round(row.share * _BAR_WIDTH)
    text = Text.assemble(("━" * filled, "cyan"), ("─" * (_BAR_WIDTH - filled), "dim"))
    for part in (row.count, row.note):
        text.append(f"  {part}" if part else "", "dim")
    return text
