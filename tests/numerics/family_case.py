"""What every family is checked for: a built model of random weights against its reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.tiny_models import CHUNK, Built

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.runtime.engine import Engine

# Float32 end to end: sums of a few hundred products in another order through two layers.
FLOAT32 = 2e-5
# Hidden states are rounded to float16 (2^-11) some ten times per layer.
FLOAT16 = 2e-2


class Comparison:
    """Logits beside those of a reference.

    ``worst`` is the largest relative error so far, and ``agreeing`` of ``positions`` have the same
    likeliest token.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.worst = 0.0
        self.positions = self.agreeing = 0

    def expect(self, logits: np.ndarray, reference: np.ndarray) -> None:
        scale = np.abs(reference).max()
        error = np.abs(logits - reference).max() / scale
        self.worst = max(self.worst, float(error))
        likeliest = np.equal(logits.argmax(-1), reference.argmax(-1))
        self.positions += likeliest.size
        self.agreeing += int(np.count_nonzero(likeliest))
        assert error < self.tolerance, f"relative error {error:.2e}"


class Case(Comparison):
    """A built model and its reference, a causal language model of transformers.

    The reference gets the weights that the artifact ships, dequantized, so that any difference is
    the compiler's.
    """

    def __init__(
        self,
        built: Built,
        model: Any,
        tolerance: float,
        adapt: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        import torch  # noqa: PLC0415 - only these tests need it

        super().__init__(tolerance)
        self._torch = torch
        self.engine = built.engine
        self.engine.clear()
        self._model = model
        state = model.state_dict()
        with torch.no_grad():
            for name, values in adapt(built.weights).items():
                state[name].copy_(torch.from_numpy(values))

    def reference(self, tokens: list[int]) -> np.ndarray:
        with self._torch.inference_mode():
            logits = self._model(self._torch.tensor([tokens]), use_cache=False).logits[0]
        array: np.ndarray = logits.numpy()
        return array


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(1, 300, count)]


def check_every_position(case: Case) -> None:
    tokens = tokens_of(CHUNK)
    case.engine.add(0)
    case.expect(case.engine.all_logits(0, tokens), case.reference(tokens))


def check_chunks_then_decoding(case: Case) -> None:
    tokens = tokens_of(3 * CHUNK + 9)
    reference = case.reference(tokens)
    prompt = 2 * CHUNK + 5
    case.engine.add(0)
    case.expect(case.engine.prefill(0, tokens[:prompt]), reference[prompt - 1])
    for position in range(prompt, len(tokens)):
        case.expect(case.engine.decode(0, tokens[position]), reference[position])


def check_halves(engine: Engine, tokens: list[int], logits: Any, limit: float) -> None:
    """Half of a text as a prompt, then token by token: within ``limit`` of logits at all positions."""
    engine.clear()
    engine.add(0)
    half = len(tokens) // 2
    rows = {half - 1: engine.prefill(0, tokens[:half])}
    rows |= {at: engine.decode(0, tokens[at]) for at in range(half, len(tokens))}
    for at, row in rows.items():
        assert np.abs(row - logits[at]).max() < limit


def check_ragged_batches(case: Case) -> None:
    lengths = {5: 11, 9: 1, 2: 17}
    sequences = {number: tokens_of(length + 6, seed=number) for number, length in lengths.items()}
    references = {number: case.reference(tokens) for number, tokens in sequences.items()}
    for number in lengths:
        case.engine.add(number)
    logits = case.engine.batch_prefill(
        list(lengths), [sequences[number][: lengths[number]] for number in lengths]
    )
    for row, number in enumerate(lengths):
        case.expect(logits[row], references[number][lengths[number] - 1])
    for step in range(6):
        order = [2, 5, 9] if step % 2 else [9, 2, 5]
        logits = case.engine.batch_decode(
            order, [sequences[number][lengths[number] + step] for number in order]
        )
        for row, number in enumerate(order):
            case.expect(logits[row], references[number][lengths[number] + step])


def check_forks(case: Case) -> None:
    """Sequences that share tokens: to the pages of those, queries of all come at once."""
    shared = tokens_of(CHUNK + 11)
    more = {number: tokens_of(6 + 2 * number, seed=number) for number in (1, 2, 3)}
    references = {number: case.reference(shared + tokens) for number, tokens in more.items()}
    case.engine.add(1)
    case.engine.prefill(1, shared)
    for number in (2, 3):
        case.engine.fork(1, number)
    numbers = [3, 1, 2]
    logits = case.engine.batch_prefill(numbers, [more[number][:-3] for number in numbers])
    for row, number in enumerate(numbers):
        case.expect(logits[row], references[number][-4])
    for step in (-3, -2, -1):
        logits = case.engine.batch_decode(numbers, [more[number][step] for number in numbers])
        for row, number in enumerate(numbers):
            case.expect(logits[row], references[number][step])
