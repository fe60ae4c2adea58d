"""What the measurements say: spreads, ratios and tables. No engine is needed here."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from edgec.runtime.bench import Spread
from spreads import spread_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MB = 1e6
GB = 1e9


@dataclass(frozen=True)
class Test:
    """One measurement of an engine.

    Attributes:
        name: such as ``"pp128"``.
        prompt: tokens that stand in the cache, or that are prefilled.
        generated: tokens that are decoded one by one; 0: the prompt's own are what is timed.
    """

    name: str
    prompt: int
    generated: int = 0

    @property
    def tokens(self) -> int:
        """Tokens whose time is measured."""
        return self.generated or self.prompt


@dataclass
class Result:
    """What was measured of an engine.

    Attributes:
        name: of the row.
        version: of the engine.
        settings: in words.
        file_bytes: of the model as it is stored.
        token_bytes: of weights that decoding a token reads.
        position_bytes: of keys and values that each position of the context adds to that; 0 of
            engines that don't tell.
        cache: how keys and values are stored; empty for what the engine does by itself.
        load: seconds from the first file, in the page cache, to an engine that can be called.
        start: seconds from the process's start to its first token.
        peak: bytes of resident memory at most.
        seconds: of each round, by the test's name.
        starts: seconds from a process's start to its first token, of processes that were started
            for nothing else.
        machine: the machine's load in each turn, as the system counts it.
        logits: after a prompt that all engines are given; None where the engine gives none.
        failure: why there are no figures, or no more of them.
    """

    name: str
    version: str = ""
    settings: str = ""
    file_bytes: int = 0
    token_bytes: int = 0
    position_bytes: int = 0
    cache: str = ""
    load: float | None = None
    start: float | None = None
    peak: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    machine: list[float] = field(default_factory=list)
    logits: Sequence[float] | None = None
    failure: str | None = None

    def rate(self, test: Test) -> Spread | None:
        """Tokens per second; None if the test was never finished."""
        measured = self.seconds.get(test.name)
        return Spread.of([test.tokens / one for one in measured]) if measured else None

    def read(self, test: Test) -> float:
        """Bytes that a token of a test that decodes reads: at the middle of what is decoded."""
        return self.token_bytes + self.position_bytes * (test.prompt + test.generated / 2)


def agreement(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> float | None:
    """The cosine between two engines' logits; None if one of them gave none."""
    if ours is None or theirs is None:
        return None
    inner = sum(a * b for a, b in zip(ours, theirs, strict=True))
    length = (sum(a * a for a in ours) * sum(b * b for b in theirs)) ** 0.5
    return inner / length if length else 0.0


def speed_table(results: Sequence[Result], tests: Sequence[Test]) -> list[str]:
    """Tokens per second, min/median/max, and the machine's median load meanwhile."""
    rows = []
    for result in results:
        rates = [result.rate(test) for test in tests]
        cells = ["-" if rate is None else spread_text(rate) for rate in rates]
        rows.append([result.name, *cells, _load(result)])
    return table(["tok/s, min/median/max", *(test.name for test in tests), "load"], rows)


def start_table(results: Sequence[Result]) -> list[str]:
    """How long new processes take to their first token, and what part of that the first row takes.

    Args:
        results: the first is the one that the others are compared with.
    """
    measured = [result for result in results if result.starts]
    rows = []
    for result in measured:
        spread = Spread.of(result.starts)
        ratio = "-"
        if result is not results[0] and results[0].starts:
            ratio = f"{spread.median / Spread.of(results[0].starts).median:.2f}"
        rows.append([result.name, spread_text(spread, 2), ratio, _load(result)])
    header = ["", "first token s, min/median/max", f"over {results[0].name}", "load"]
    return table(header, rows)


def _load(result: Result) -> str:
    return f"{median(result.machine):.1f}" if result.machine else "-"


def cost_table(results: Sequence[Result], base: Result) -> list[str]:
    """Load time, start, size and memory of each engine, and how far its logits are from ours."""
    rows = []
    for result in results:
        if result.load is None or result.start is None:
            continue
        same = agreement(base.logits, result.logits)
        ratio = f"{result.peak / result.file_bytes:.2f}" if result.file_bytes else "-"
        rows.append(
            [
                result.name,
                f"{result.load:.2f}",
                f"{result.start:.2f}",
                f"{result.file_bytes / MB:.0f}",
                f"{result.peak / MB:.0f}",
                ratio,
                "-" if same is None else f"{same:.3f}",
            ]
        )
    header = ["", "load s", "start s", "file MB", "peak RSS MB", "RSS / file", "cosine of logits"]
    return table(header, rows)


def pairs(results: Sequence[Result], base: str) -> list[tuple[Result, Result]]:
    """Rows of ours with each row of others that stores keys and values the same way.

    Args:
        results: all rows.
        base: what the names of our own rows begin with.
    """
    ours = [result for result in results if result.name.startswith(base)]
    others = [result for result in results if result not in ours]
    return [(mine, other) for mine in ours for other in others if mine.cache == other.cache]


def ratio_table(compared: Sequence[tuple[Result, Result]], tests: Sequence[Test]) -> list[str]:
    """The first's median speed over the second's, of each pair."""
    rows = []
    for mine, other in compared:
        cells = []
        for test in tests:
            ours, theirs = mine.rate(test), other.rate(test)
            cells.append("-" if not (ours and theirs) else f"{ours.median / theirs.median:.2f}")
        if any(cell != "-" for cell in cells):
            rows.append([f"{mine.name} / {other.name}", *cells])
    return table(["ratio of medians", *(test.name for test in tests)], rows)


def limit_table(
    results: Sequence[Result], tests: Sequence[Test], limits: Mapping[str, Sequence[float]]
) -> list[str]:
    """Where memory ends decoding: the limit in tok/s of the weights alone, and what part of
    the memory's speed a test reaches with what its tokens read.

    Args:
        results: of the engines.
        tests: those that decode count.
        limits: bytes per second that the machine reads, by the kind of pages, one a round.
    """
    decoding = [t for t in tests if t.generated and any(result.rate(t) for result in results)]
    names = [name for name, rates in limits.items() if rates]
    header = ["", "weights MB a token"]
    for name in names:
        header += [f"limit, {name}, tok/s", *(f"{test.name} of it" for test in decoding)]
    rows = []
    for result in results:
        if not result.token_bytes or not any(result.rate(test) for test in decoding):
            continue
        row = [result.name, f"{result.token_bytes / MB:.0f}"]
        for name in names:
            most = median(limits[name]) / result.token_bytes
            row.append(f"{most:.1f}")
            for test in decoding:
                rate = result.rate(test)
                if rate is None:
                    row.append("-")
                else:
                    reached = rate.median * result.read(test) / median(limits[name])
                    row.append(f"{100 * reached:.0f} %")
        rows.append(row)
    return table(header, rows)


def failures(results: Sequence[Result]) -> list[str]:
    """A line for each engine that has no figures, or not all."""
    return [f"{result.name}: {result.failure}" for result in results if result.failure]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Markdown, its columns aligned; nothing without rows."""
    if not rows:
        return []
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
