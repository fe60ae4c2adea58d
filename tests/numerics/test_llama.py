"""The Llama family against transformers, on small random models of the real architecture.

The reference is transformers in float32 with the weights that the artifact ships, dequantized, so
that any difference is the compiler's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from numerics.family_case import (
    FLOAT16,
    FLOAT32,
    Case,
    check_chunks_then_decoding,
    check_every_position,
    check_ragged_batches,
    tokens_of,
)
from numerics.family_cases import FamilyCase
from numerics.tiny_models import CHUNK, SIZES, build, save_random_model

if TYPE_CHECKING:
    from pathlib import Path

    from numerics.tiny_models import Built

pytestmark = pytest.mark.slow

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "grouped queries, llama3 rope, untied, q0f32": (
        {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False},
        {"scheme": "q0f32"},
        FLOAT32,
    ),
    "biases, one head per query, odd vocabulary, tied, q0f16": (
        {
            "attention_bias": True,
            "mlp_bias": True,
            "num_key_value_heads": 4,
            "vocab_size": 301,
            "tie_word_embeddings": True,
        },
        {"scheme": "q0f16"},
        FLOAT16,
    ),
    "tied int4 embedding, 8-bit and plain overrides, wide head, q4f32_1": (
        {"tie_word_embeddings": True, "head_dim": 64},
        {
            "scheme": "q4f32_1",
            "overrides": [
                {"match": "model.layers.0.mlp.*", "bits": 8, "group_size": 64},
                {"match": "*.o_proj.*", "bits": 16, "group_size": None},
            ],
        },
        FLOAT32,
    ),
    "untied, one key-value head, q4f16_1": (
        {"tie_word_embeddings": False, "num_key_value_heads": 1, "rope_parameters": LLAMA3_ROPE},
        {"scheme": "q4f16_1"},
        FLOAT16,
    ),
}


def built_model(name: str, folder: Path, stages: Path) -> tuple[Built, Any, float]:
    """A built model, its reference, and the tolerance."""
    from transformers import LlamaConfig  # noqa: PLC0415

    config, quantization, tolerance = CASES[name]
    settings = {**SIZES, "num_key_value_heads": 2, **config}
    model = save_random_model(LlamaConfig(**settings), folder, seed=7)
    return build(folder, stages, **quantization), model, tolerance


def family_cases() -> list[FamilyCase]:
    return [
        FamilyCase(
            name=name,
            family="llama",
            settings=settings,
            quantization=quantization,
            make=lambda folder, stages, name=name: Case(*built_model(name, folder, stages)),
        )
        for name, (settings, quantization, _) in CASES.items()
    ]


@pytest.fixture(scope="module", params=list(CASES))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, stages = (tmp_path_factory.mktemp(name) for name in ("model", "stages"))
    return built_model(request.param, folder, stages)


@pytest.fixture
def case(built: Any) -> Case:
    return Case(*built)


def test_every_position_of_a_prefill(case: Case) -> None:
    check_every_position(case)


def test_chunked_prefill_then_decode(case: Case) -> None:
    check_chunks_then_decoding(case)


def test_rolling_back_forgets(case: Case) -> None:
    tokens = tokens_of(20)
    case.engine.add(0)
    case.engine.prefill(0, tokens)
    case.engine.pop(0, 8)
    other = tokens_of(8, seed=1)
    case.expect(case.engine.prefill(0, other), case.reference(tokens[:12] + other)[-1])


def test_logits_stay_as_they_are_in_later_passes(case: Case) -> None:
    case.engine.add(0)
    first = case.engine.prefill(0, tokens_of(6))
    copied = first.copy()
    first[0] += 1  # they are the caller's to change, too
    copied[0] += 1
    for token in (1, 2, 3):
        later = case.engine.decode(0, token)
        np.testing.assert_array_equal(first, copied)
        assert not np.shares_memory(first, later)


def test_ragged_batches(case: Case) -> None:
    check_ragged_batches(case)


def test_engine_functions_work_through_the_library(case: Case) -> None:
    case.engine.add(0)
    logits = case.engine.prefill(0, tokens_of(4))[None]
    probs = case.engine.softmax(logits, [0.5])
    exact = np.exp((logits - logits.max()).astype(np.float64) / 0.5)
    np.testing.assert_allclose(probs, exact / exact.sum(), rtol=1e-4, atol=1e-9)
    biased = case.engine.in_place(
        "apply_logit_bias_inplace",
        logits,
        np.zeros(1, np.int32),
        np.array([5], np.int32),
        np.array([2.5], np.float32),
    )
    assert biased[0, 5] == logits[0, 5] + np.float32(2.5)
    chunk, hidden = case.engine.function("alloc_embedding_tensor")().shape
    assert (chunk, hidden) == (CHUNK, 128)


def test_metadata_lists_the_weights_in_the_order_of_the_calls(built: Any, tmp_path: Path) -> None:
    metadata = built[0].engine.metadata
    assert metadata["kv_state_kind"] == "kv_cache"
    assert metadata["sliding_window_size"] == -1
    assert metadata["params"][0]["name"].startswith("model.embed_tokens")
    assert set(metadata["memory_usage"]) >= {"prefill", "decode", "batch_decode", "embed"}
    assert all(isinstance(size, int) for size in metadata["memory_usage"].values())
