"""Text with guessed tokens and without, in turns, on the same artifact; and what passes cost.

    python benchmarks/speculative.py artifacts/tinypy/x86-64-v4

Prompts are made of the source of modules of the running interpreter. Text that the model writes:

* edit: a module's beginning, and then the same again up to a point. What follows can be copied.
* continue: a module's beginning. The text repeats itself as source code does, or as small models do.
* fresh: the same at a temperature of 1, where what comes next is seldom what came before.

Text that is given, so that it doesn't matter what the weights are: every token is appended as if the model
had chosen it, behind a prompt with the module as it was:

* rename: the module with three of its names changed.
* comment: the module with a comment in front of every eighth line.
* other: another module. What can be copied is what all source code has in common.

Both ways have to give the same tokens, and with given text the same logits; what differs is counted.
Ratios are of the tokens per second of a prompt with guesses to those without, both the best of all rounds;
what is learnt about guesses is forgotten after each text.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import keyword
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from edgec.artifacts.locate import locate_artifact
from edgec.runtime.generate import generate
from edgec.runtime.sampling import SamplingOptions
from edgec.runtime.session import open_session
from edgec.runtime.speculative import DRAFT_MAX, Speculation, SpeculativeSequence
from edgec.runtime.tokenizer import Tokenizer
from machine import machine
from spreads import spread_text

if TYPE_CHECKING:
    from edgec.runtime.session import Session
    from edgec.runtime.speculative import SpeculationStats

MODULES = ("textwrap", "json.decoder", "argparse", "shlex", "string", "configparser")
ROWS = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Case:
    """Prompts and how they are continued: by the model, or as it is given."""

    name: str
    prompts: list[list[int]]
    options: SamplingOptions | None = None
    texts: list[list[int]] = field(default_factory=list)


@dataclass
class Result:
    """Of one prompt."""

    rates: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    texts: dict[bool, list[int]] = field(default_factory=dict)
    stats: SpeculationStats | None = None

    @property
    def ratio(self) -> float:
        return max(self.rates[True]) / max(self.rates[False])


def renamed(source: str) -> str:
    names = Counter(re.findall(r"\b[a-z_]{4,}\b", source))
    chosen = [name for name, _ in names.most_common() if not keyword.iskeyword(name)][1:4]
    return re.sub(rf"\b({'|'.join(chosen)})\b", r"my_\1", source)


def commented(source: str) -> str:
    lines = source.splitlines(keepends=True)
    return "".join(
        line if number % 8 else f"# Step {number // 8} begins here.\n{line}"
        for number, line in enumerate(lines)
    )


def cases(tokenizer: Tokenizer, prompt: int, count: int) -> list[Case]:
    encode = tokenizer.encode
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    greedy = SamplingOptions(temperature=0)
    sources = [inspect.getsource(importlib.import_module(name)) for name in MODULES]
    modules = [ids for ids in map(encode, sources) if len(ids) >= 2 * prompt]
    half = prompt // 2
    # The prompt has as much of a module as the text, and a few lines more.
    parts = [source[: 4 * count] for source in sources]
    whole = [[*bos, *encode(part)] for part in parts]

    def given(name: str, texts: list[str]) -> Case:
        return Case(name, whole, texts=[encode(text)[:count] for text in texts])

    return [
        Case("edit", [[*bos, *m[:half], *m[: half // 4]] for m in modules], greedy),
        Case("continue", [[*bos, *m[:prompt]] for m in modules], greedy),
        Case(
            "fresh",
            [[*bos, *m[prompt : 2 * prompt]] for m in modules],
            SamplingOptions(temperature=1.0, seed=1),
        ),
        given("rename", [renamed(part) for part in parts]),
        given("comment", [commented(part) for part in parts]),
        given("other", [*parts[1:], parts[0]]),
    ]


def write(
    session: Session, case: Case, index: int, count: int, speculation: Speculation | None
) -> tuple[list[int], float, SpeculationStats | None]:
    """A text of the model, the seconds of all of it but the prefill, and what became of guesses."""
    assert case.options is not None
    steps = generate(
        session.engine,
        session.tokenizer,
        case.prompts[index],
        case.options,
        max_tokens=count,
        speculation=speculation,
    )
    every = [next(steps)]
    begun = time.perf_counter()
    every += steps
    seconds = time.perf_counter() - begun
    stats = every[-1].stats
    ids = [step.id for step in every if step.id is not None]
    return ids, seconds, stats.speculation if stats else None


def append(
    session: Session, case: Case, index: int, speculation: Speculation | None
) -> tuple[list[int], float, SpeculationStats | None]:
    """The same of a text that is given; the most likely tokens behind each, and a sum of the logits."""
    text = case.texts[index]
    engine = session.engine
    speculative = (
        None
        if speculation is None
        else SpeculativeSequence(engine, speculation, limit=len(text) + 1)
    )
    used = speculative or engine
    used.add(0)
    used.prefill(0, case.prompts[index])
    found, bits = [], 0
    begun = time.perf_counter()
    for token in text:
        logits = used.decode(0, token)
        found.append(int(logits.argmax()))
        bits ^= int(logits.view(np.uint32).sum(dtype=np.uint64))
    seconds = time.perf_counter() - begun
    used.remove(0)
    return [*found, bits], seconds, speculative.stats if speculative else None


def costs(session: Session, ids: list[int], rounds: int) -> None:
    """Print how long passes over several tokens take, in turns."""
    engine = session.engine
    engine.add(0)
    engine.prefill(0, ids[: -max(ROWS)])
    seconds: dict[int, list[float]] = {rows: [] for rows in ROWS}
    equal = dict.fromkeys(ROWS, True)
    tokens = ids[-max(ROWS) :]
    single = np.stack([engine.decode(0, token) for token in tokens])
    engine.pop(0, len(tokens))
    for _ in range(1 + rounds):
        for rows, taken in seconds.items():
            begun = time.perf_counter()
            passed = (
                engine.all_logits(0, tokens[:rows]) if rows > 1 else engine.decode(0, tokens[0])
            )
            taken.append(time.perf_counter() - begun)
            equal[rows] &= bool(np.array_equal(passed.reshape(rows, -1), single[:rows]))
            engine.pop(0, rows)
    engine.remove(0)
    one = median(seconds[1][1:])
    print(f"passes behind {len(ids) - max(ROWS)} tokens")
    print(f"{'tokens':>6} {'ms min':>8} {'median':>8} {'of one':>7} {'a token':>8}  bits")
    for rows, taken in seconds.items():
        # The first is slower: memory is taken.
        middle = median(taken[1:])
        same = "same" if equal[rows] else "differ"
        print(
            f"{rows:6} {1e3 * min(taken[1:]):8.2f} {1e3 * middle:8.2f} {middle / one:7.2f}"
            f" {middle / one / rows:8.2f}  {same}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artifact", help="folder, or name of a recipe that was built")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--generate-tokens", type=int, default=192)
    parser.add_argument("--draft-max", type=int, default=DRAFT_MAX)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--prompts", type=int, default=len(MODULES), help="of each text")
    parser.add_argument(
        "--tokenizer", type=Path, help="folder of another model's, for random weights; any will do"
    )
    names = ["edit", "continue", "fresh", "rename", "comment", "other"]
    parser.add_argument("--case", nargs="*", choices=names, default=names)
    options = parser.parse_args()
    session = open_session(
        locate_artifact(options.artifact, Path("artifacts")), threads=options.threads
    )
    print(f"{session.artifact.manifest['name']}, {session.threads} threads, {machine()}")
    tokenizer = session.tokenizer if options.tokenizer is None else Tokenizer(options.tokenizer)
    every = cases(tokenizer, options.prompt_tokens, options.generate_tokens)
    costs(session, every[1].prompts[0], max(7, options.rounds))
    wanted = [case for case in every if case.name in options.case]
    if wanted:
        print(
            f"{'text':9} {'tok/s without':>22} {'with':>22} {'ratio':>18} {'accepted':>12} per pass"
        )
    for case in wanted:
        prompts = case.prompts[: options.prompts]
        results = [Result() for _ in prompts]
        for _ in range(options.rounds):
            for index, result in enumerate(results):
                for speculation in (None, Speculation(options.draft_max)):
                    ids, seconds, stats = (
                        append(session, case, index, speculation)
                        if case.texts
                        else write(session, case, index, options.generate_tokens, speculation)
                    )
                    way = speculation is not None
                    result.rates[way].append((len(ids) - 1) / seconds)
                    result.texts[way] = ids
                    result.stats = stats or result.stats
        report(case, results)


def report(case: Case, results: list[Result]) -> None:
    without, with_ = (
        spread_text([max(result.rates[way]) for result in results]) for way in (False, True)
    )
    differ = sum(result.texts[True] != result.texts[False] for result in results)
    every = [result.stats for result in results if result.stats is not None]
    accepted = f"{sum(s.accepted for s in every)}/{sum(s.drafted for s in every)}"
    per_pass = median(stats.tokens_per_pass for stats in every)
    ratio = spread_text([result.ratio for result in results], 2)
    print(
        f"{case.name:9} {without:>22} {with_:>22} {ratio:>18} {accepted:>12} {per_pass:8.2f}"
        + (f"  {differ} of {len(results)} texts differ" if differ else "")
    )


if __name__ == "__main__":
    main()
