"""edgec on this machine's CPU against llama.cpp, ONNX Runtime GenAI and OpenVINO GenAI.

    python benchmarks/cpu                                    # Llama 3.2 1B's shape
    python benchmarks/cpu --model phi-4-mini --engine "llama.cpp Q4_0-pure"
    python benchmarks/cpu --context 8192 --test "tg64 at 8k" --kv int8
    python benchmarks/cpu --start                            # new processes, edgec run too
    python benchmarks/cpu --layers 2 --rounds 1              # to try it
    python benchmarks/cpu --no-avx512                        # x86-64-v3 against llama.cpp with AVX2

All convert the same random weights. Every engine is installed into an environment of its own in the
folder of --cache (llama.cpp is compiled there), once; models stay there too. What can't be installed
or run is named with the reason, and the others go on.

Measured are, on all processors that this process may use: pp128 and pp512, from a prompt to the
token chosen after it; tg64, 64 tokens one by one after a prompt of 8, of 2048 and of --context. One
engine runs at a time, in turns; the others' processes are stopped meanwhile. Prompts are new in
every round.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

import starts
import steps
from figures import (
    MB,
    Result,
    Test,
    cost_table,
    failures,
    limit_table,
    pairs,
    ratio_table,
    speed_table,
    start_table,
)
from options import MODELS, choose, parse, phases, room
from peers import Entry, Models, entries, model_digest
from probes import of_memory, probe_lines, start_probes
from race import Process, Racer, held, prompt

from machine import machine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

LONG = 1024
"""A prompt of so many tokens is computed once, and stays in the cache through its phase."""
COMPARED = 64
"""Tokens of the prompt whose logits are compared."""
# Of an engine's memory to the size of its file: more is taken by none that was tried.
_NEEDED = 3
_INTERRUPTED = "interrupted: these are the rounds so far"


def main() -> None:
    options = parse(__doc__ or "")
    # Rounds take minutes: what there is is printed if a run is ended before.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = json.loads((MODELS.get(options.model) or Path(options.model)).read_bytes())
    if options.layers:
        config["num_hidden_layers"] = options.layers
    chosen = choose(
        entries(avx512=not options.no_avx512, kv_cache=options.kv or ""), options.engine
    )
    tests = phases(options.context, options.test)
    models = Models(
        config,
        options.cache / "models" / model_digest(config),
        options.cache / "environments",
        options.target or ("x86-64-v3" if options.no_avx512 else "host"),
        options.scheme,
        room([test for phase in tests for test in phase]),
    )
    broken: dict[str | None, str] = {}
    prepared = [prepare(entry, models, broken) for entry in chosen]
    models.tidy()
    results = [result for result, _ in prepared]
    if options.prepare:
        print("\n".join(failures(results)))
        return
    ready = [
        (entry, result, model)
        for entry, (result, model) in zip(chosen, prepared, strict=True)
        if model is not None
    ]
    rates: dict[str, list[float]] = {}
    print(machine(), flush=True)
    if options.start:
        rows = start(ready, models, options)
        results = [*rows, *(result for result in results if result not in rows)]
        tables = [start_table(results), failures(results)]
    else:
        rates = compare(ready, models, tests, options)
        tables = report(results, [test for phase in tests for test in phase], rates)
    print(machine())
    for lines in tables:
        print("\n".join(["", *lines]), flush=True)
    if options.json:
        plain = [{**asdict(result), "logits": None} for result in results]
        record = {"machine": machine(), "limits": rates, "results": plain}
        options.json.write_text(json.dumps(record))


def prepare(
    entry: Entry, models: Models, broken: dict[str | None, str]
) -> tuple[Result, Path | None]:
    """Install an engine and make its model; the path is None if that fails.

    Args:
        entry: the engine.
        models: what makes models.
        broken: environments that can't be made, with the reason; they aren't tried again.
    """
    result = Result(entry.name, cache=entry.cache)
    if entry.environment in broken:
        result.failure = broken[entry.environment]
        return result, None
    try:
        entry.command(models.environments)
    except steps.StepError as error:
        broken[entry.environment] = result.failure = str(error)
    else:
        try:
            return result, entry.model(models)
        except steps.StepError as error:
            result.failure = str(error)
    print(f"  {entry.name} failed: {result.failure}", file=sys.stderr, flush=True)
    return result, None


def fits(result: Result, model: Path) -> bool:
    """Whether there is memory for an engine; brings its files into the page cache."""
    files = [model] if model.is_file() else [f for f in model.rglob("*") if f.is_file()]
    result.file_bytes = sum(file.stat().st_size for file in files)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass
    free = steps.free_memory()
    if free < _NEEDED * result.file_bytes:
        result.failure = f"{free / MB:.0f} MB of memory are left: choose fewer with --engine"
    return result.failure is None


def opened(entry: Entry, result: Result, model: Path, models: Models) -> Racer:
    """An engine that has loaded its model."""
    process = Process(entry.command(models.environments), entry.variables, log(entry, models))
    racer = Racer(result, process)
    racer.open(model=str(model), context=models.context, **entry.request)
    variables = [f"{name}={value}" for name, value in entry.variables.items()]
    words = [entry.form, result.settings, *variables]
    result.settings = ", ".join(word for word in words if word)
    print(f"  {result.name}: {result.version}; {result.settings}", file=sys.stderr, flush=True)
    return racer


def log(entry: Entry, models: Models) -> Path:
    """What an engine writes to its standard error."""
    return models.folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', entry.name)}.log"


def start(
    ready: list[tuple[Entry, Result, Path]], models: Models, options: argparse.Namespace
) -> list[Result]:
    """Starts of all engines in turns, and of edgec's command."""
    rows: list[tuple[Result, Callable[[], float]]] = []
    for entry, result, model in ready:
        fits(result, model)
        if entry.environment is None:
            own = Result(result.name.replace("edgec", "edgec run", 1))
            command = starts.run_command(model, models.context)
            text = models.folder / "edgec-run.log"
            rows.append((own, partial(starts.command_start, command, text)))
        request = {"model": str(model), "context": models.context, **entry.request}
        words = entry.command(models.environments)
        text = log(entry, models)
        rows.append((result, partial(starts.side_start, words, entry.variables, text, request)))
    try:
        for number in range(options.rounds):
            with held(options.lock):
                for result, turn in rows:
                    starts.measure(result, turn)
            line = f"round {number + 1} of {options.rounds}: {machine()}"
            print(line, file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
    return [result for result, _ in rows]


def compare(
    ready: list[tuple[Entry, Result, Path]],
    models: Models,
    tests: list[list[Test]],
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """All turns of all engines; what the machine gave by itself, by the probe's name."""
    vocabulary = models.config["vocab_size"]
    limits = start_probes(options.cache)
    rates: dict[str, list[float]] = {name: [] for name in limits}
    racers: list[Racer] = []
    try:
        with held(options.lock):
            for entry, result, model in ready:
                if fits(result, model):
                    racers.append(opened(entry, result, model, models))
                    racers[-1].compare(prompt(COMPARED, vocabulary, [0, 0]))
        race(racers, limits, rates, tests, vocabulary, options)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
    finally:
        for process in (*(racer.process for racer in racers), *limits.values()):
            process.close()
    return rates


def race(
    racers: list[Racer],
    limits: dict[str, Process],
    rates: dict[str, list[float]],
    phases: list[list[Test]],
    vocabulary: int,
    options: argparse.Namespace,
) -> None:
    """All turns of all engines. Each adds to ``rates`` what the machine gave, by the probe's name."""
    for number, phase in enumerate(phases):
        for turn in range(options.rounds):
            with held(options.lock):
                if turn == 0:
                    for test in filter(is_long, phase):
                        for racer in racers:
                            racer.prepare(long_prompt(test, vocabulary))
                for index, test in enumerate(phase):
                    for name, process in limits.items():
                        rates[name].append(process.ask("rate")["result"])
                    tokens = prompt(test.prompt, vocabulary, [1 + turn, index])
                    if is_long(test):
                        tokens = long_prompt(test, vocabulary)
                    for racer in racers:
                        racer.measure(test, tokens)
            print(
                f"phase {number + 1} of {len(phases)}, round {turn + 1} of {options.rounds}:"
                f" {machine()}",
                file=sys.stderr,
                flush=True,
            )


def is_long(test: Test) -> bool:
    return test.prompt >= LONG


def long_prompt(test: Test, vocabulary: int) -> list[int]:
    """The same in every round: engines keep it."""
    return prompt(test.prompt, vocabulary, [0, 1])


def report(
    results: list[Result], tests: list[Test], rates: dict[str, list[float]]
) -> list[list[str]]:
    """All tables, as lines."""
    engines = [f"{r.name}: {r.version}; {r.settings}" for r in results if r.version]
    parts = [
        engines,
        speed_table(results, tests),
        ratio_table(pairs(results, results[0].name), tests),
        probe_lines(rates),
        limit_table(results, tests, of_memory(rates)),
        cost_table(results, results[0]),
        failures(results),
    ]
    return [part for part in parts if part]


if __name__ == "__main__":
    main()
