"""What an engine is asked for, wherever it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.runtime.forward import Capacity
from edgec.verification.sampling import check_sampling

if TYPE_CHECKING:
    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Logits

CAPACITY = Capacity(sequences=4, tokens=256, prefill_chunk=64)
# More than two pages of the KV cache, more than one tile of any kernel, a multiple of neither.
PROMPT = [(7 * place * place + 3) % 500 + 1 for place in range(37)]


def logits(engine: Engine) -> dict[str, Logits]:
    """Prompts, single tokens and batches, with sequences that are forked and cut short.

    Raises:
        VerificationError: a function that engines call on logits is wrong.
    """
    found = {}
    engine.add(0)
    found["prefill"] = engine.prefill(0, PROMPT)
    for step in range(3):
        found[f"decode {step}"] = engine.decode(0, 11 + step)
    engine.fork(0, 1)
    engine.add(2)
    found["batch prefill"] = engine.batch_prefill([1, 2], [PROMPT[:3], PROMPT[5:17]])
    found["batch decode"] = engine.batch_decode([0, 1, 2], [5, 6, 7])
    engine.pop(1, 2)
    engine.remove(0)
    found["after a pop"] = engine.decode(1, 9)
    found["probabilities"] = engine.softmax(found["batch decode"], [0.5, 1.0, 2.0])
    # The functions on logits have to be right, too.
    check_sampling(engine, found["batch decode"])
    return found
