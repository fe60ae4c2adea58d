"""What a run of the comparison is asked for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from figures import Test

from edgec.cachefolder import TOOLS, cache_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peers import Entry

ROOT = Path(__file__).parents[2]
MODELS = {
    "llama-3.2-1b": ROOT / "benchmarks" / "shapes" / "llama-3.2-1b.json",
    "phi-4-mini": ROOT / "recipes" / "phi4mini" / "config.json",
}
# Those of a phase take turns. A long prompt stays in the cache through its phase.
SHORT = (Test("pp128", 128), Test("pp512", 512), Test("tg64", 8, 64))
LONG = 2048
_ROOM = 256
"""Tokens that every engine has room for behind the longest prompt."""


def parse(description: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        description: of the program.
        arguments: its words; None for those of this process.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(MODELS)
    parser.add_argument("--model", default="llama-3.2-1b", help=f"{names} or a config.json")
    parser.add_argument("--layers", type=int, help="fewer than the model's, for trying")
    parser.add_argument("--target", help="of edgec; by default this machine's")
    parser.add_argument("--scheme", default="q4f16_1", help="of edgec's quantization")
    parser.add_argument(
        "--engine", action="append", help="only this row, or those that begin so; may be repeated"
    )
    parser.add_argument(
        "--context",
        type=int,
        action="append",
        default=[],
        help="decode behind a prompt of so many tokens too, such as 8192; may be repeated",
    )
    parser.add_argument(
        "--test", action="append", help="only this one, as its column is called; may be repeated"
    )
    parser.add_argument(
        "--kv",
        choices=["int8"],
        help="rows with keys and values in 8 bits too, of edgec and of llama.cpp (q8_0)",
    )
    parser.add_argument(
        "--start",
        action="store_true",
        help="measure instead how long new processes take to their first token; edgec run too",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-avx512", action="store_true")
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_root() / TOOLS / "benchmarks",
        help="of engines and models",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="install and convert, measure nothing"
    )
    parser.add_argument("--lock", type=Path, help="a file whose lock each round holds")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args(arguments)


def phases(contexts: Sequence[int], wanted: Sequence[str] | None) -> list[list[Test]]:
    """The tests, by the phases in which they take turns.

    Args:
        contexts: tokens of long prompts, beside the one that is always measured.
        wanted: names of the tests that are asked for; None for all.
    """
    lengths = sorted({LONG, *contexts})
    known = [list(SHORT), *([Test(f"tg64 at {count_text(n)}", n, 64)] for n in lengths)]
    names = [test.name for phase in known for test in phase]
    for name in wanted or []:
        if name not in names:
            sys.exit(f"there is no test {name!r}: " + ", ".join(names))
    chosen = [[test for test in phase if test.name in (wanted or names)] for phase in known]
    return [phase for phase in chosen if phase]


def room(tests: Sequence[Test]) -> int:
    """Tokens that every engine has room for.

    One artifact serves all runs without a longer context.
    """
    return max(LONG, *(test.prompt for test in tests)) + _ROOM


def count_text(count: int) -> str:
    """Such as ``8k`` for 8192."""
    return str(count) if count % 1024 else f"{count // 1024}k"


def choose(known: list[Entry], wanted: list[str] | None) -> list[Entry]:
    """The rows that are asked for, and edgec, which all are compared with.

    Rows with another cache are there because they were asked for already.
    """
    if not wanted:
        return known
    for start in wanted:
        if not any(entry.name.startswith(start) for entry in known):
            sys.exit(f"no engine's name begins with {start!r}: " + ", ".join(e.name for e in known))
    ours, *others = known
    names = {entry.name for entry in known}
    return [
        ours,
        *(e for e in others if e.cache or any(matches(e.name, text, names) for text in wanted)),
    ]


def matches(name: str, text: str, names: set[str]) -> bool:
    """Whether a row is asked for: by its whole name, or else by its beginning."""
    return name == text if text in names else name.startswith(text)
