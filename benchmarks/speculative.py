"""Greedy generation with guessed tokens and without, in turns, on the same artifact.

    python benchmarks/speculative.py artifacts/tinypy/x86-64-v4

Each kind of text has prompts of its own, made of the source of modules of the running interpreter:

* edit: a module's beginning, and then the same again up to a point. What follows can be copied.
* continue: a module's beginning. The text repeats itself as source code does, or as small models do.
* fresh: the same at a temperature of 1, where what comes next is seldom what came before.

Both ways have to give the same tokens; texts that differ are counted. Before, passes over several
tokens are compared with single steps. Ratios are of the tokens per second of a prompt with guesses to
those without, both the best of all rounds; what is learnt about guesses is forgotten after each text.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from edgec.artifacts.locate import locate_artifact
from edgec.runtime.generate import generate
from edgec.runtime.sampling import SamplingOptions
from edgec.runtime.session import open_session
from edgec.runtime.speculative import DRAFT_MAX, Speculation
from machine import machine
from spreads import spread_text

if TYPE_CHECKING:
    from edgec.runtime.session import Session

MODULES = ("textwrap", "json.decoder", "argparse", "shlex", "string", "configparser")


@dataclass(frozen=True)
class Case:
    """Prompts and how they are continued."""

    name: str
    prompts: list[list[int]]
    options: SamplingOptions


@dataclass
class Result:
    """Of one prompt."""

    rates: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    texts: dict[bool, list[int | None]] = field(default_factory=dict)
    drafted: int = 0
    accepted: int = 0
    per_pass: float = 1.0

    @property
    def ratio(self) -> float:
        return max(self.rates[True]) / max(self.rates[False])


def sources(session: Session) -> list[list[int]]:
    """Modules as tokens."""
    return [
        session.tokenizer.encode(inspect.getsource(importlib.import_module(name)))
        for name in MODULES
    ]


def cases(session: Session, prompt: int) -> list[Case]:
    bos = [] if session.tokenizer.bos_id is None else [session.tokenizer.bos_id]
    greedy = SamplingOptions(temperature=0)
    modules = [ids for ids in sources(session) if len(ids) >= 2 * prompt]
    half = prompt // 2
    return [
        Case("edit", [[*bos, *m[:half], *m[: half // 4]] for m in modules], greedy),
        Case("continue", [[*bos, *m[:prompt]] for m in modules], greedy),
        Case(
            "fresh",
            [[*bos, *m[prompt : 2 * prompt]] for m in modules],
            SamplingOptions(temperature=1.0, seed=1),
        ),
    ]


def run(
    session: Session,
    prompt: list[int],
    options: SamplingOptions,
    count: int,
    speculation: Speculation | None,
    result: Result,
) -> None:
    """One generation, without its prefill in the time."""
    steps = generate(
        session.engine,
        session.tokenizer,
        prompt,
        options,
        max_tokens=count,
        speculation=speculation,
    )
    ids = [next(steps).id]
    begun = time.perf_counter()
    ids += [step.id for step in steps if step.stats is None or note(step.stats, result)]
    seconds = time.perf_counter() - begun
    result.rates[speculation is not None].append((len(ids) - 1) / seconds)
    result.texts[speculation is not None] = ids


def note(stats: object, result: Result) -> bool:
    speculation = getattr(stats, "speculation", None)
    if speculation is not None:
        result.drafted, result.accepted = speculation.drafted, speculation.accepted
        result.per_pass = speculation.tokens_per_pass
    return False


def same_bits(session: Session, ids: list[int], rows: int) -> tuple[int, int, float]:
    """How many rows of a pass are those of single steps, of how many; the largest difference."""
    engine = session.engine
    engine.add(0)
    engine.prefill(0, ids[:-rows])
    passed = engine.all_logits(0, ids[-rows:])
    engine.pop(0, rows)
    single = np.stack([engine.decode(0, token) for token in ids[-rows:]])
    engine.remove(0)
    equal = int((passed == single).all(axis=1).sum())
    return equal, rows, float(np.abs(passed - single).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artifact", help="folder, or name of a recipe that was built")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--generate-tokens", type=int, default=192)
    parser.add_argument("--draft-max", type=int, default=DRAFT_MAX)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--case", action="append", choices=["edit", "continue", "fresh"])
    options = parser.parse_args()
    session = open_session(
        locate_artifact(options.artifact, Path("artifacts")), threads=options.threads
    )
    print(f"{session.artifact.manifest['name']}, {session.threads} threads, {machine()}")
    ids = sources(session)[0]
    for rows in (2, 4, 8, 16):
        equal, of, largest = same_bits(session, ids[: options.prompt_tokens], rows)
        print(f"pass of {rows:2}: {equal} of {of} rows as single steps, max |Δlogit| {largest:.1e}")
    print(f"{'text':9} {'tok/s without':>22} {'with':>22} {'ratio':>18} {'accepted':>12} per pass")
    for case in cases(session, options.prompt_tokens):
        if options.case and case.name not in options.case:
            continue
        results = [Result() for _ in case.prompts]
        for _ in range(options.rounds):
            for prompt, result in zip(case.prompts, results, strict=True):
                for speculation in (None, Speculation(options.draft_max)):
                    run(
                        session,
                        prompt,
                        case.options,
                        options.generate_tokens,
                        speculation,
                        result,
                    )
        report(case, results)


def report(case: Case, results: list[Result]) -> None:
    without, with_ = (
        spread_text([max(result.rates[way]) for result in results]) for way in (False, True)
    )
    differ = sum(result.texts[True] != result.texts[False] for result in results)
    drafted = sum(result.drafted for result in results)
    accepted = f"{sum(result.accepted for result in results)}/{drafted}"
    per_pass = median(result.per_pass for result in results)
    ratio = spread_text([result.ratio for result in results], 2)
    print(
        f"{case.name:9} {without:>22} {with_:>22} {ratio:>18} {accepted:>12} {per_pass:8.2f}"
        + (f"  {differ} of {len(results)} texts differ" if differ else "")
    )


if __name__ == "__main__":
    main()
