"""A token has the same logits alone and in a pass over several, bit for bit: what guessing tokens rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.artifacts.library_metadata import EXACT_ROWS, EXACT_VERIFICATION
from edgec.target import load_target
from numerics import tiny_models
from numerics.tiny_models import SIZES, library_of, run_stages, save_random_model
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgec.runtime.engine import Engine

pytestmark = pytest.mark.slow

PAGE = 16
PART = 256
"""Tokens of the context that attention of one token sums up by itself."""
LONGEST = PART + 3 * EXACT_ROWS
PASSES = (2, 3, 4, 5, 8, 9, EXACT_ROWS)

# Grouped queries; integer codes of two widths, plain layers between them, rows that fill no tile.
MIXED: tuple[dict[str, Any], dict[str, Any]] = (
    {"num_key_value_heads": 2, "tie_word_embeddings": True, "vocab_size": 301},
    {
        "scheme": "q4f32_1",
        "overrides": [
            {"match": "*.mlp.*", "bits": 8, "group_size": 64},
            {"match": "*.o_proj.*", "bits": 16, "group_size": None},
        ],
    },
)
HALF: tuple[dict[str, Any], dict[str, Any]] = (
    {"num_key_value_heads": 1, "tie_word_embeddings": False},
    {"scheme": "q4f16_1"},
)
PLAIN: tuple[dict[str, Any], dict[str, Any]] = (
    {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    {"scheme": "q0f32"},
)
EMULATED = [needs("qemu-aarch64"), needs("aarch64-linux-gnu-g++")]
CASES = {
    "host, mixed": ("host", MIXED, "", ()),
    "host, half, int8 cache": ("host", HALF, "int8", (pytest.mark.nightly,)),
    "host, half": ("host", HALF, "", (pytest.mark.nightly,)),
    "host, plain, float16 cache": ("host", PLAIN, "float16", (pytest.mark.nightly,)),
    "AVX2, mixed, int8 cache": ("x86-64-v3", MIXED, "int8", (pytest.mark.nightly,)),
    "AVX2, half": ("x86-64-v3", HALF, "", (pytest.mark.nightly,)),
    "Arm, mixed": ("linux-arm64", MIXED, "", (*EMULATED, pytest.mark.nightly)),
    "Arm, products of matrices, int8 cache": (
        "linux-arm64-i8mm",
        HALF,
        "int8",
        (*EMULATED, pytest.mark.nightly),
    ),
}


def open_engine(
    folder: Path,
    target: str,
    settings: dict[str, Any],
    quantization: dict[str, Any],
    kv_cache: str,
) -> Engine:
    from transformers import LlamaConfig  # noqa: PLC0415

    save_random_model(LlamaConfig(**{**SIZES, **settings}), folder / "model", seed=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "CONTEXT", 2 * LONGEST)
        patch.setattr(tiny_models, "BATCH", EXACT_ROWS)
        profile = load_target(target)
        outputs = run_stages(
            folder / "model", folder / "stages", profile, kv_cache=kv_cache, **quantization
        )
        return library_of(outputs, profile).open(LONGEST, sequences=EXACT_ROWS)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=marks) for name, (*_, marks) in CASES.items()],
)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    target, case, kv_cache, _ = CASES[request.param]
    return open_engine(tmp_path_factory.mktemp("exact"), target, *case, kv_cache)


@pytest.fixture
def empty(engine: Engine) -> Iterator[Engine]:
    engine.clear()
    yield engine
    engine.clear()


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(1, 300, count)]


def steps(engine: Engine, sequence: int, tokens: Sequence[int]) -> np.ndarray:
    return np.stack([engine.decode(sequence, token) for token in tokens])


def test_it_is_promised(engine: Engine) -> None:
    from edgec.scheduling.kernels.cpu_attention_left import FEW  # noqa: PLC0415 - loads TVM

    assert engine.metadata[EXACT_VERIFICATION] is True
    assert FEW == EXACT_ROWS


@pytest.mark.parametrize("rows", PASSES)
def test_a_token_of_each_sequence(empty: Engine, rows: int) -> None:
    """Attention is that of single tokens there: all else is seen alone."""
    sequences = list(range(rows))
    for sequence in sequences:
        empty.add(sequence)
        empty.prefill(sequence, tokens_of(2 + 2 * sequence, seed=sequence))
    tokens = tokens_of(rows, seed=99)
    alone = np.concatenate(
        [steps(empty, sequence, [token]) for sequence, token in zip(sequences, tokens, strict=True)]
    )
    for name in ("batch_decode", "batch_verify"):
        for sequence in sequences:
            empty.pop(sequence, 1)
        found = empty._forward(name, sequences, [[token] for token in tokens])
        assert np.array_equal(found, alone), name


@pytest.mark.parametrize("rows", PASSES)
@pytest.mark.parametrize("begin", [1, PAGE - 3, PAGE, 5 * PAGE - 1, PART - 4, PART - 1, PART + 2])
def test_several_tokens_of_a_sequence(empty: Engine, rows: int, begin: int) -> None:
    """Across the ends of pages, and of the parts that attention sums up one by one."""
    tokens = tokens_of(begin + rows + 2)
    empty.add(0)
    empty.prefill(0, tokens[:begin])
    alone = steps(empty, 0, tokens[begin:])
    empty.pop(0, rows + 2)
    passed = empty.all_logits(0, tokens[begin : begin + rows])
    assert np.array_equal(passed, alone[:rows])
    # What it left in the cache is what single steps leave.
    assert np.array_equal(steps(empty, 0, tokens[begin + rows :]), alone[rows:])


def test_guesses_that_were_wrong_leave_no_trace(empty: Engine) -> None:
    tokens = tokens_of(3 * PAGE + 9)
    empty.add(0)
    empty.prefill(0, tokens[: PAGE + 5])
    right = steps(empty, 0, tokens[PAGE + 5 :])
    empty.pop(0, len(right))
    random = np.random.default_rng(3)
    at = PAGE + 5
    while at < len(tokens):
        rows = int(random.integers(2, EXACT_ROWS + 1))
        accepted = min(int(random.integers(1, rows + 1)), len(tokens) - at)
        guessed = [*tokens[at : at + accepted], *tokens_of(rows, seed=at)][:rows]
        found = empty.all_logits(0, guessed)
        assert np.array_equal(found[:accepted], right[at - PAGE - 5 :][:accepted])
        if rows > accepted:
            empty.pop(0, rows - accepted)
        at += accepted


def test_it_can_fail(empty: Engine) -> None:
    """Another token before it, and the logits are others."""
    tokens = tokens_of(8)
    empty.add(0)
    empty.prefill(0, tokens[:4])
    alone = steps(empty, 0, tokens[4:])
    empty.pop(0, 5)
    empty.decode(0, tokens[3] + 1)
    assert not np.array_equal(empty.all_logits(0, tokens[4:]), alone)
