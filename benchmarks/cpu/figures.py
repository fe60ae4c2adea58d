"""What the measurements say: spreads, ratios and tables. No engine is needed here."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some values."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        held = list(values)
        return cls(min(held), median(held), max(held))

    def text(self, digits: int = 1) -> str:
        return "/".join(f"{value:.{digits}f}" for value in (self.min, self.median, self.max))


@dataclass
class Result:
    """What was measured of an engine.

    Attributes:
        name: of the row.
        version: of the engine.
        settings: in words.
        file_bytes: of the model as it is stored.
        token_bytes: of weights that decoding a token reads.
        load: seconds from the first file, in the page cache, to an engine that can be called.
        start: seconds from the process's start to its first token.
        peak: bytes of resident memory at most.
        seconds: of each round, by the test's name.
        logits: after a prompt that all engines are given; None where the engine gives none.
        failure: why there are no figures, or no more of them.
    """

    name: str
    version: str = ""
    settings: str = ""
    file_bytes: int = 0
    token_bytes: int = 0
    load: float | None = None
    start: float | None = None
    peak: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    logits: Sequence[float] | None = None
    failure: str | None = None

    def rate(self, test: Test) -> Spread | None:
        """Tokens per second; None if the test was never finished."""
        measured = self.seconds.get(test.name)
        return Spread.of(test.tokens / one for one in measured) if measured else None


def agreement(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> float | None:
    """The cosine between two engines' logits; None if one of them gave none."""
    if ours is None or theirs is None:
        return None
    inner = sum(a * b for a, b in zip(ours, theirs, strict=True))
    length = (sum(a * a for a in ours) * sum(b * b for b in theirs)) ** 0.5
    return inner / length if length else 0.0


def speed_table(results: Sequence[Result], tests: Sequence[Test]) -> list[str]:
    """Tokens per second, min/median/max; failed engines by name, with the reason."""
    rows = []
    for result in results:
        rates = [result.rate(test) for test in tests]
        cells = ["-" if rate is None else rate.text() for rate in rates]
        rows.append([result.name, *cells])
    return table(["tok/s, min/median/max", *(test.name for test in tests)], rows)


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


def ratio_table(base: Result, others: Sequence[Result], tests: Sequence[Test]) -> list[str]:
    """The base's median speed over each other's."""
    rows = []
    for other in others:
        cells = []
        for test in tests:
            ours, theirs = base.rate(test), other.rate(test)
            cells.append("-" if not (ours and theirs) else f"{ours.median / theirs.median:.2f}")
        if any(cell != "-" for cell in cells):
            rows.append([f"{base.name} / {other.name}", *cells])
    return table(["ratio of medians", *(test.name for test in tests)], rows)


def limit_table(
    results: Sequence[Result], tests: Sequence[Test], limits: Mapping[str, Sequence[float]]
) -> list[str]:
    """Where memory ends decoding: the limit in tok/s and what part of it is reached.

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
                row.append("-" if rate is None else f"{100 * rate.median / most:.0f} %")
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
