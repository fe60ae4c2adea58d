"""Check the functions that engines call on logits against NumPy, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.errors import VerificationError
from edgec.verification.figures import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.runtime.engine import Engine

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]

# Float32 against float64: of the largest magnitude. Sums over a vocabulary are of a few hundred
# thousand terms, added in parts.
_TOLERANCE = 1e-5
_SAMPLERS = (
    "argsort_probs",
    "sample_with_top_p",
    "multinomial_from_uniform",
    "sampler_take_probs",
)
_TOP_P = 0.9
# Where a uniform number falls between two tokens to within this, either may be drawn.
_NEAR = 1e-5


def check_sampling(engine: Engine, logits: npt.NDArray[np.float32]) -> dict[str, float]:
    """Call every function that engines call on logits ``(batch, vocab)``.

    Returns:
        The largest error by function, relative to the scale of what is computed. The samplers, which
        draw tokens, are 0 or the check fails.

    Raises:
        VerificationError: a function is wrong; it is named.
    """
    rows, vocab = logits.shape
    random = np.random.default_rng(0)
    ids = np.arange(rows, dtype=np.int32)
    places = np.repeat(ids, 2)
    tokens = np.tile(np.asarray([7, 11], np.int32) % vocab, rows)
    bias = np.linspace(-2, 2, 2 * rows, dtype=np.float32)
    counts = np.tile(np.asarray([1, 3], np.int32), rows)
    penalties = np.tile(np.asarray([0.5, 0.25, 1.2], np.float32), (rows, 1))
    words = random.integers(-(2**31), 2**31, (rows, -(-vocab // 32))).astype(np.int32)
    temperature = np.linspace(0.0, 1.5, rows).astype(np.float32)
    wide = logits.astype(np.float64)
    errors = {}

    def note(name: str, got: npt.NDArray[np.float32], wanted: Floats) -> None:
        scale = float(np.abs(wanted).max()) or 1.0
        error = float(np.abs(got - wanted).max()) / scale
        if not error <= _TOLERANCE:
            raise _wrong(name, f"an error of {error:.3g} of the scale of its results")
        errors[name] = rounded(error)

    got = engine.in_place("apply_logit_bias_inplace", logits, places, tokens, bias)
    note("apply_logit_bias_inplace", got, _with_bias(wide, places, tokens, bias))
    got = engine.in_place("apply_penalty_inplace", logits, ids, places, tokens, counts, penalties)
    note("apply_penalty_inplace", got, _with_penalties(wide, places, tokens, counts, penalties))
    got = engine.in_place("apply_bitmask_inplace", logits, ids, words)
    allowed = _allowed(words, vocab)
    if not np.array_equal(np.where(allowed, got, 0), np.where(allowed, logits, 0)):
        raise _wrong("apply_bitmask_inplace", "other logits where the mask allows a token")
    if not (got[~allowed] < -1e30).all():
        raise _wrong("apply_bitmask_inplace", "a token that the mask forbids is still possible")
    errors["apply_bitmask_inplace"] = 0.0
    probs = engine.softmax(logits, list(temperature))
    note("softmax_with_temperature", probs, _softmax(wide, temperature.astype(np.float64)))
    names = [name for name in _SAMPLERS if engine.has(name)]
    _check_samplers(engine, names, probs, random)
    return errors | dict.fromkeys(names, 0.0)


def _with_bias(logits: Floats, places: Integers, tokens: Integers, bias: Any) -> Floats:
    result = logits.copy()
    np.add.at(result, (places, tokens), bias.astype(np.float64))
    return result


def _with_penalties(
    logits: Floats, places: Integers, tokens: Integers, counts: Integers, penalties: Any
) -> Floats:
    result = logits.copy()
    presence, frequency, repetition = penalties.astype(np.float64)[places].T
    lowered = result[places, tokens] - (presence + counts * frequency)
    result[places, tokens] = np.where(lowered < 0, lowered * repetition, lowered / repetition)
    return result


def _allowed(words: Integers, vocab: int) -> npt.NDArray[np.bool_]:
    bits = words.view(np.uint32)[:, :, None] >> np.arange(32, dtype=np.uint32) & 1
    return bits.reshape(len(words), -1)[:, :vocab].astype(bool)


def _softmax(logits: Floats, temperature: Floats) -> Floats:
    """Temperature 0 spreads the probability evenly over the largest logits."""
    result = np.empty_like(logits)
    for row, (values, t) in enumerate(zip(logits, temperature, strict=True)):
        if t == 0:
            weights = (values == values.max()).astype(np.float64)
        else:
            weights = np.exp((values - values.max()) / t)
        result[row] = weights / weights.sum()
    return result


def _check_samplers(
    engine: Engine,
    names: Sequence[str],
    probs: npt.NDArray[np.float32],
    random: np.random.Generator,
) -> None:
    """Check those of the samplers that a device has; which these are depends on its engines."""
    if "argsort_probs" not in names:
        return
    rows, vocab = probs.shape
    samples = np.tile(np.arange(rows, dtype=np.int32), 2)
    uniform = random.random(len(samples)).astype(np.float32)
    ordered, order = engine.call("argsort_probs", probs)
    if not np.array_equal(np.take_along_axis(probs, order, axis=1), ordered):
        raise _wrong("argsort_probs", "probabilities that aren't those of its tokens")
    if (np.diff(ordered, axis=1) > 0).any() or (np.sort(order, axis=1) != np.arange(vocab)).any():
        raise _wrong("argsort_probs", "an order that isn't descending, or leaves tokens out")
    top_p = np.full(rows, _TOP_P, np.float32)
    (drawn,) = engine.call("sample_with_top_p", ordered, order, uniform, samples, top_p)
    for row, u, token in zip(samples, uniform, drawn, strict=True):
        sums = np.cumsum(ordered[row].astype(np.float64))
        kept = int(np.searchsorted(sums, _TOP_P)) + 1
        _check_draw("sample_with_top_p", sums[:kept] / sums[kept - 1], order[row], u, int(token))
    if "multinomial_from_uniform" not in names:
        return
    (drawn,) = engine.call("multinomial_from_uniform", probs, uniform, samples)
    for row, u, token in zip(samples, uniform, drawn, strict=True):
        sums = np.cumsum(probs[row].astype(np.float64))
        _check_draw("multinomial_from_uniform", sums / sums[-1], np.arange(vocab), u, int(token))
    offsets = np.asarray([0, vocab * (rows - 1) + 3 % vocab], np.int32)
    chosen, top, tokens = engine.call("sampler_take_probs", probs, order, samples, drawn, offsets)
    row, column = offsets // vocab, offsets % vocab
    right = (
        np.array_equal(chosen, probs[samples, drawn])
        and np.array_equal(tokens, order[row, column])
        and np.array_equal(top, probs[row, order[row, column]])
    )
    if not right:
        raise _wrong("sampler_take_probs", "other probabilities or tokens than were asked for")


def _check_draw(name: str, sums: Floats, tokens: Any, u: float, drawn: int) -> None:
    """A token is right if the uniform number falls on it, or next to it to within rounding."""
    low, high = (int(np.searchsorted(sums, u + side)) for side in (-_NEAR, _NEAR))
    near = {int(token) for token in tokens[low : min(high, len(sums) - 1) + 1]}
    if drawn not in near:
        raise _wrong(name, f"token {drawn} for the number {u:.6f}, which falls on {sorted(near)}")


def _wrong(name: str, what: str) -> VerificationError:
    return VerificationError(
        f"{name} gives {what}",
        where=name,
        remedy="this is a fault of the compiler or of its stand-in: report it with the recipe"
        " and the target",
    )
