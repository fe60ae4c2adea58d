"""edgec on this machine's CPU against llama.cpp, ONNX Runtime GenAI and OpenVINO GenAI.

    python benchmarks/cpu                                    # Llama 3.2 1B's shape
    python benchmarks/cpu --model phi-4-mini --engine edgec --engine "llama.cpp Q4_0-pure"
    python benchmarks/cpu --layers 2 --rounds 1              # to try it
    python benchmarks/cpu --no-avx512                        # x86-64-v3 against llama.cpp with AVX2

All convert the same random weights. Every engine is installed into an environment of its own in the
folder of --cache (llama.cpp is compiled there), once; models stay there too. What can't be installed
or run is named with the reason, and the others go on.

Measured are, on all processors that this process may use: pp128 and pp512, from a prompt to the
token chosen after it; tg64, 64 tokens one by one after a prompt of 8 and of 2048. One engine runs at
a time, in turns; the others' processes are stopped meanwhile. Prompts are new in every round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import steps
from figures import (
    GB,
    MB,
    Result,
    Spread,
    Test,
    cost_table,
    failures,
    limit_table,
    ratio_table,
    speed_table,
)
from peers import SIDES, Entry, Models, entries, model_digest
from race import EngineError, Process, Racer, held, prompt

from edgec.cachefolder import cache_root
from machine import machine

ROOT = Path(__file__).parents[2]
MODELS = {
    "llama-3.2-1b": ROOT / "benchmarks" / "shapes" / "llama-3.2-1b.json",
    "phi-4-mini": ROOT / "recipes" / "phi4mini" / "config.json",
}
LONG = 2048
# Those of a phase take turns. A long prompt stays in the cache through its phase.
PHASES = (
    (Test("pp128", 128), Test("pp512", 512), Test("tg64", 8, 64)),
    (Test("tg64 at 2k", LONG, 64),),
)
CONTEXT = 2304
COMPARED = 64
"""Tokens of the prompt whose logits are compared."""
# Of an engine's memory to the size of its file: more is taken by none that was tried.
_NEEDED = 3


def main() -> None:
    options = parse()
    # Rounds take minutes: what there is is printed if a run is ended before.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = json.loads((MODELS.get(options.model) or Path(options.model)).read_bytes())
    if options.layers:
        config["num_hidden_layers"] = options.layers
    chosen = choose(entries(avx512=not options.no_avx512), options.engine)
    models = Models(
        config,
        options.cache / "models" / model_digest(config),
        options.cache / "environments",
        options.target or ("x86-64-v3" if options.no_avx512 else "host"),
        options.scheme,
        CONTEXT,
    )
    wanted = [
        [test for test in phase if test.name in (options.test or [test.name])] for phase in PHASES
    ]
    phases = [phase for phase in wanted if phase]
    broken: dict[str | None, str] = {}
    prepared = [prepare(entry, models, broken) for entry in chosen]
    if options.prepare:
        print("\n".join(failures([result for result, _ in prepared])))
        return
    limits = probes(options.cache)
    rates: dict[str, list[float]] = {name: [] for name in limits}
    racers: list[Racer] = []
    try:
        with held(options.lock):
            for (result, model), entry in zip(prepared, chosen, strict=True):
                if model is not None and fits(result, model):
                    racers.append(opened(entry, result, model, models))
                    racers[-1].compare(prompt(COMPARED, config["vocab_size"], [0, 0]))
        print(machine(), flush=True)
        race(racers, limits, rates, phases, config["vocab_size"], options)
    except KeyboardInterrupt:
        print("interrupted: these are the rounds so far", file=sys.stderr)
    finally:
        for process in (*(racer.process for racer in racers), *limits.values()):
            process.close()
    results = [result for result, _ in prepared]
    print(machine())
    for lines in report(results, [test for phase in phases for test in phase], rates):
        print("\n".join(["", *lines]), flush=True)
    if options.json:
        plain = [{**asdict(result), "logits": None} for result in results]
        record = {"machine": machine(), "limits": rates, "results": plain}
        options.json.write_text(json.dumps(record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        "--test",
        action="append",
        choices=[test.name for phase in PHASES for test in phase],
        help="only this one; may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-avx512", action="store_true")
    parser.add_argument(
        "--cache", type=Path, default=cache_root() / "benchmarks", help="of engines and models"
    )
    parser.add_argument(
        "--prepare", action="store_true", help="install and convert, measure nothing"
    )
    parser.add_argument("--lock", type=Path, help="a file whose lock each round holds")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


def choose(known: list[Entry], wanted: list[str] | None) -> list[Entry]:
    """The rows that are asked for, and edgec, which all are compared with."""
    if not wanted:
        return known
    for start in wanted:
        if not any(entry.name.startswith(start) for entry in known):
            sys.exit(f"no engine's name begins with {start!r}: " + ", ".join(e.name for e in known))
    ours, *others = known
    names = {entry.name for entry in known}
    return [ours, *(e for e in others if any(matches(e.name, text, names) for text in wanted))]


def matches(name: str, text: str, names: set[str]) -> bool:
    """Whether a row is asked for: by its whole name, or else by its beginning."""
    return name == text if text in names else name.startswith(text)


def prepare(
    entry: Entry, models: Models, broken: dict[str | None, str]
) -> tuple[Result, Path | None]:
    """Install an engine and make its model; the path is None if that fails.

    Args:
        entry: the engine.
        models: what makes models.
        broken: environments that can't be made, with the reason; they aren't tried again.
    """
    result = Result(entry.name)
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


def probes(cache: Path) -> dict[str, Process]:
    """Processes that measure how fast memory is read, by the kind of pages."""
    compiler = os.environ.get("CC", "cc")

    def build(place: Path) -> None:
        words = [compiler, "-O3", "-march=native", "-shared", "-fPIC"]
        steps.run([*words, "-o", str(place), str(SIDES / "read.c")], cache / "read.log")

    started: dict[str, Process] = {}
    try:
        library = steps.make(cache / "read.so", "compiling the memory's reader", build)
        for name, huge in (("huge pages", True), ("4 KiB pages", False)):
            command = [sys.executable, str(SIDES / "memory_side.py")]
            process = Process(command, {}, cache / "memory.log")
            started[name] = process
            process.ask("open", spawned=process.spawned, model=str(library), huge=huge)
    except (steps.StepError, EngineError) as error:
        print(f"  the memory's limit isn't measured: {error}", file=sys.stderr, flush=True)
        for process in started.values():
            process.close()
        return {}
    return started


def fits(result: Result, model: Path) -> bool:
    """Whether there is memory for an engine; brings its files into the page cache."""
    files = [model] if model.is_file() else [f for f in model.rglob("*") if f.is_file()]
    result.file_bytes = sum(file.stat().st_size for file in files)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    if free < _NEEDED * result.file_bytes:
        result.failure = f"{free / MB:.0f} MB of memory are left: choose fewer with --engine"
    return result.failure is None


def opened(entry: Entry, result: Result, model: Path, models: Models) -> Racer:
    """An engine that has loaded its model."""
    log = models.folder / f"{re.sub(r'[^A-Za-z0-9_.]+', '-', entry.name)}.log"
    process = Process(entry.command(models.environments), entry.variables, log)
    racer = Racer(result, process)
    racer.open(model=str(model), context=CONTEXT, **entry.request)
    variables = [f"{name}={value}" for name, value in entry.variables.items()]
    words = [entry.form, result.settings, *variables]
    result.settings = ", ".join(word for word in words if word)
    print(f"  {result.name}: {result.version}; {result.settings}", file=sys.stderr, flush=True)
    return racer


def race(
    racers: list[Racer],
    limits: dict[str, Process],
    rates: dict[str, list[float]],
    phases: list[list[Test]],
    vocabulary: int,
    options: argparse.Namespace,
) -> None:
    """All turns of all engines. Each adds to ``rates`` the bytes per second, by the kind of pages."""
    long_prompt = prompt(LONG, vocabulary, [0, 1])
    for number, phase in enumerate(phases):
        for turn in range(options.rounds):
            with held(options.lock):
                if turn == 0 and any(test.prompt == LONG for test in phase):
                    for racer in racers:
                        racer.prepare(long_prompt)
                for index, test in enumerate(phase):
                    for name, process in limits.items():
                        rates[name].append(process.ask("rate")["result"])
                    is_long = test.prompt == LONG
                    new = prompt(test.prompt, vocabulary, [1 + turn, index])
                    for racer in racers:
                        racer.measure(test, long_prompt if is_long else new)
            print(
                f"phase {number + 1} of {len(phases)}, round {turn + 1} of {options.rounds}:"
                f" {machine()}",
                file=sys.stderr,
                flush=True,
            )


def report(
    results: list[Result], tests: list[Test], rates: dict[str, list[float]]
) -> list[list[str]]:
    """All tables, as lines."""
    ours, *others = results
    reads = [
        f"memory, {name}: {Spread.of(rate / GB for rate in found).text()} GB/s"
        for name, found in rates.items()
        if found
    ]
    engines = [f"{r.name}: {r.version}; {r.settings}" for r in results if r.version]
    parts = [
        engines,
        speed_table(results, tests),
        ratio_table(ours, others, tests),
        reads,
        limit_table(results, tests, rates),
        cost_table(results, ours),
        failures(results),
    ]
    return [part for part in parts if part]


if __name__ == "__main__":
    main()
