"""What a longer context costs: decoding behind contexts of several lengths, in turns.

    python benchmarks/context_cost.py artifacts/tinypy/x86-64-v4 --context 128 900

All contexts are in one KV cache at once. A turn appends some tokens to each, one by one, and takes them back,
so that lengths stay what they are and a neighbour that takes the memory for a while slows all of them.
"times" is a turn's time per token against the shortest context's in the same turn, and "memory" what it would be
if tokens took as long as it takes to read the weights and the context's keys and values.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from edgec.artifacts.locate import locate_artifact
from edgec.runtime.bench import Spread, prompt_ids
from edgec.runtime.forward import Capacity
from edgec.runtime.load import load_engine
from edgec.runtime.session import open_session
from machine import machine
from spreads import spread_text

if TYPE_CHECKING:
    from edgec.runtime.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artifact", nargs="+", help="folder, or name of a recipe that was built")
    parser.add_argument("--context", type=int, nargs="+", default=[128, 2048])
    parser.add_argument("--tokens", type=int, default=8, help="of each context in a turn")
    parser.add_argument("--turns", type=int, default=24)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    contexts = sorted(options.context)
    for name in options.artifact:
        artifact = locate_artifact(name, Path("artifacts"))
        # One of the artifact's own length first: it says what is read, and checks what is loaded.
        session = open_session(artifact, threads=options.threads)
        weights, per_token = session.decode_weights_bytes, session.kv_bytes_per_token
        chunk = session.engine.capacity.prefill_chunk
        runtime, vocab, threads = artifact.manifest["runtime"], session.vocab_size, session.threads
        del session
        engine = load_engine(
            artifact.library,
            artifact.model,
            runtime["cpu_features"],
            runtime["architecture"],
            capacity=Capacity(
                sequences=len(contexts),
                tokens=sum(contexts) + len(contexts) * (options.tokens + chunk),
                prefill_chunk=chunk,
            ),
        )
        print(f"{artifact.manifest['name']}, {per_token:,} bytes of keys and values per token")
        print(f"{threads} threads, {machine()}")
        times = in_turns(engine, vocab, contexts, options.tokens, options.turns)
        report(contexts, times, weights, per_token)
        del engine


def in_turns(
    engine: Engine, vocab: int, contexts: list[int], tokens: int, turns: int
) -> list[list[float]]:
    """Seconds per token of each turn, for each context."""
    for sequence, length in enumerate(contexts):
        engine.add(sequence)
        engine.prefill(sequence, prompt_ids(length, vocab))
    times: list[list[float]] = [[] for _ in contexts]
    for turn in range(turns + 1):
        # Who comes first changes, too.
        for sequence in (*range(turn % len(contexts), len(contexts)), *range(turn % len(contexts))):
            begun = time.perf_counter()
            for token in prompt_ids(tokens, vocab):
                engine.decode(sequence, token)
            if turn:
                times[sequence].append((time.perf_counter() - begun) / tokens)
            engine.pop(sequence, tokens)
    return times


def report(contexts: list[int], times: list[list[float]], weights: int, per_token: int) -> None:
    print(f"{'context':>8} {'tok/s':>18} {'times':>18} {'median':>7} {'memory':>7}")
    for context, own in zip(contexts, times, strict=True):
        ratios = [seconds / first for seconds, first in zip(own, times[0], strict=True)]
        read = (weights + context * per_token) / (weights + contexts[0] * per_token)
        rates = Spread.of([1 / seconds for seconds in own])
        print(
            f"{context:8} {spread_text(rates):>18} {spread_text(ratios, 2):>18}"
            f" {median(own) / median(times[0]):7.3f} {read:7.3f}"
        )


if __name__ == "__main__":
    main()
