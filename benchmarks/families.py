"""Print the table of model families, and write it to docs/families.md.

    python benchmarks/families.py                # builds every family's small models, a quarter of an hour
    python benchmarks/families.py --only gemma2  # builds those of some families, and keeps the other rows
    python benchmarks/families.py --refresh      # builds nothing: only the lengths of files are counted

The models are those of the tests (tests/numerics), each built for this CPU and compared with
transformers on the weights that it ships; the tests' tolerances hold here too.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.models.find import families
from machine import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numerics.family_cases import FamilyCase

PAGE = ROOT / "docs" / "families.md"
TARGETS = {"x86": "host", "android-adreno": "android-adreno"}
HALF = ("f16_1", "q0f16")
LENGTH = 6
HEADER = """\
| family | config features covered | prefill | decode | half precision | top-1 | lines | x86 | android-adreno |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
TEXT = """\
# Families

What each family's small random models show, beside transformers with the weights that the artifact
ships. This page is made by [`benchmarks/families.py`](../benchmarks/README.md) from the models of
`tests/numerics`; a test checks that no family is missing and that lengths are right.

- **config features covered**: fields of `config.json` that those models set, with their values. A
  family may know more: it refuses a field that it doesn't know and that would change the numbers.
- **prefill**, **decode**: the largest error of a logit relative to the largest logit, rounded up to 1,
  2 or 5, with float32 hidden states: of every position of a prefill, and of a chunked prefill with the
  decoding after it and of ragged batches. **half precision**: of all those where hidden states are float16.
- **top-1**: positions whose likeliest token is the reference's.
- **lines**: of the family's file.
- **x86**, **android-adreno**: seconds of processor time that it takes to compile a library of such a
  model, with two layers; larger models share their kernels among layers.

"""


@dataclass(frozen=True)
class Figures:
    """What one model showed.

    Attributes:
        prefill: largest relative error of a prefill.
        decode: of chunks, decoding and batches.
        half: whether hidden states are float16.
        agreeing: positions with the same likeliest token.
        positions: all that were compared.
        seconds: of processor time that compiling takes, by column.
    """

    prefill: float
    decode: float
    half: bool
    agreeing: int
    positions: int
    seconds: Mapping[str, float]


def measure(case: FamilyCase, *, targets: Mapping[str, str]) -> Figures:
    """Build a model, compare it, and compile it again for each target."""
    from edgec.target import load_target  # noqa: PLC0415 - all that --refresh can do without
    from numerics.tiny_models import run_stages  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="edgec-families-") as folder:
        model, stages = Path(folder, "model"), Path(folder, "stages")
        made = case.make(model, stages)
        case.prefill(made)
        prefill, made.worst = made.worst, 0.0
        for check in case.decode:
            made.engine.clear()
            check(made)
        shared = {path.name: path for path in stages.iterdir()}
        seconds = {}
        for column, target in targets.items():
            before = processor_seconds()
            run_stages(
                model,
                Path(folder, target),
                load_target(target),
                shared=shared,
                **case.quantization,
            )
            seconds[column] = processor_seconds() - before
        scheme = str(case.quantization["scheme"])
        return Figures(
            prefill, made.worst, scheme.endswith(HALF), made.agreeing, made.positions, seconds
        )


def processor_seconds() -> float:
    """Of this process and those it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def features(cases: Iterable[FamilyCase]) -> str:
    """The fields that the models set."""
    values: dict[str, list[str]] = {}
    for case in cases:
        for name, value in case.settings.items():
            text = shown(value)
            if text not in values.setdefault(name, []):
                values[name].append(text)
    return ", ".join(
        f"`{name}`" if texts == ["true"] else f"`{name}` {' and '.join(texts)}"
        for name, texts in sorted(values.items())
    )


def shown(value: Any) -> str:
    """A field's value in a few letters."""
    if isinstance(value, dict):
        kind = value.get("rope_type", value.get("type"))
        return str(kind) if kind else ", ".join(map(str, sorted(value)))
    if isinstance(value, list) and len(value) > LENGTH:
        return f"({len(value)} of them)"
    return json.dumps(value)


def rounded_up(error: float) -> str:
    """The next larger one of 1, 2 or 5 times a power of ten: it seldom changes."""
    if error == 0:
        return "0"
    power = math.floor(math.log10(error))
    for digit in (1, 2, 5, 10):
        if error <= digit * 10.0**power:
            return f"{digit * 10.0**power:.0e}".replace("e-0", "e-")
    raise AssertionError(error)


def row(family: str, cases: list[FamilyCase], figures: list[Figures]) -> str:
    """One line of the table."""
    exact = [item for item in figures if not item.half]
    half = [max(item.prefill, item.decode) for item in figures if item.half]
    agreeing, positions = (
        sum(getattr(item, name) for item in figures) for name in ("agreeing", "positions")
    )
    cells = [
        f"`{family}`",
        features(cases),
        rounded_up(max(item.prefill for item in exact)) if exact else "",
        rounded_up(max(item.decode for item in exact)) if exact else "",
        rounded_up(max(half)) if half else "",
        f"{agreeing} of {positions}",
        str(lines_of(family)),
        *(f"{figures[0].seconds[column]:.0f} s" for column in TARGETS),
    ]
    return f"| {' | '.join(cells)} |"


def lines_of(family: str) -> int:
    """Length of a family's file."""
    return len((ROOT / f"compiler/edgec/models/{family}.py").read_text("utf-8").splitlines())


def present_rows(page: Path) -> dict[str, str]:
    """The page's rows by family, with the lengths that files have now."""
    rows: dict[str, str] = {}
    if not page.is_file():
        return rows
    for line in page.read_text("utf-8").splitlines():
        cells = line.strip("|").split(" | ")
        family = cells[0].strip(" `")
        if line.startswith("| `") and family in families():
            cells[LENGTH] = str(lines_of(family))
            rows[family] = f"|{' | '.join(cells)}|"
    return rows


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="FAMILY", choices=families())
    parser.add_argument("--refresh", action="store_true", help="only count lines")
    parser.add_argument("--page", type=Path, default=PAGE, help="to write to")
    arguments = parser.parse_args()
    rows = present_rows(arguments.page)
    if not arguments.refresh:
        from numerics.family_cases import all_cases  # noqa: PLC0415 - loads torch

        print(machine(), file=sys.stderr)
        cases = all_cases()
        for family in arguments.only or sorted({case.family for case in cases}):
            chosen = [case for case in cases if case.family == family]
            if not chosen:
                sys.exit(f"no test in tests/numerics offers a model of the family {family}")
            figures = []
            for case in chosen:
                targets = {} if figures else TARGETS
                figures.append(measure(case, targets=targets))
                print(f"{case.name}: {figures[-1]}", file=sys.stderr)
            rows[family] = row(family, chosen, figures)
    table = HEADER + "".join(f"{rows[family]}\n" for family in sorted(rows))
    arguments.page.write_text(TEXT + table)
    print(table, end="")


if __name__ == "__main__":
    main()
