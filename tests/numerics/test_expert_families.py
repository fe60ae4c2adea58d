"""Families with a mixture of experts against transformers, each with all its features switched on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.verification.stacked_experts import checkpoint_tensors
from numerics.family_case import (
    FLOAT16,
    FLOAT32,
    Case,
    check_chunks_then_decoding,
    check_every_position,
    check_ragged_batches,
)
from numerics.family_cases import FamilyCase, model_type
from numerics.tiny_models import build, save_random_model
from on_every_change import nightly_but

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numerics.tiny_models import Built

pytestmark = pytest.mark.slow

SIZES = {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class Model:
    """A family's class of transformers' configs and what it is given; how it is stored."""

    config: str
    settings: dict[str, Any]
    quantization: dict[str, Any] = field(default_factory=lambda: {"scheme": "q0f32"})
    tolerance: float = FLOAT32


EIGHT_BITS = {"match": "*.experts.down_proj.*", "bits": 8, "group_size": 32}
MIXED = {
    "num_hidden_layers": 2,
    "mlp_only_layers": [0],
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 64,
    "head_dim": 64,
    "attention_bias": True,
}
MODELS = {
    "mixtral": Model(
        "MixtralConfig",
        {"num_hidden_layers": 2, "num_local_experts": 8, "num_experts_per_tok": 2},
    ),
    "mixtral, 4 and 8 bits": Model(
        "MixtralConfig",
        {"num_hidden_layers": 2, "num_local_experts": 5, "num_experts_per_tok": 3},
        {"scheme": "q4f32_1", "overrides": [EIGHT_BITS]},
    ),
    "qwen3_moe, weights as they are, every second layer": Model(
        "Qwen3MoeConfig",
        # The first layer is an MLP because it isn't the step's, the fourth because it is listed.
        {
            **MIXED,
            "num_hidden_layers": 4,
            "norm_topk_prob": False,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
        },
    ),
    "qwen3_moe, normalized weights, q4f32_1": Model(
        "Qwen3MoeConfig",
        {**MIXED, "norm_topk_prob": True, "tie_word_embeddings": True},
        {"scheme": "q4f32_1"},
    ),
    "qwen3_moe, q4f16_1": Model(
        "Qwen3MoeConfig",
        # In half precision a token may choose another expert where two are close: here it takes all.
        {**MIXED, "norm_topk_prob": True, "num_experts": 4},
        {"scheme": "q4f16_1"},
        FLOAT16,
    ),
}


def built_model(name: str, folder: Path, stages: Path) -> tuple[Built, Any, float]:
    """A built model, its reference, and the tolerance."""
    import transformers  # noqa: PLC0415 - only these tests need it

    model = MODELS[name]
    config = getattr(transformers, model.config)(
        **SIZES, bos_token_id=1, eos_token_id=2, pad_token_id=0, **model.settings
    )
    reference = save_random_model(config, folder, seed=7)
    return build(folder, stages, **model.quantization), reference, model.tolerance


def make_case(name: str, folder: Path, stages: Path) -> Case:
    made, reference, tolerance = built_model(name, folder, stages)
    return Case(made, reference, tolerance, partial(stacked, reference))


def family_cases() -> list[FamilyCase]:
    return [
        FamilyCase(
            name=name,
            family=model_type(model.config),
            settings=model.settings,
            quantization=model.quantization,
            make=partial(make_case, name),
        )
        for name, model in MODELS.items()
    ]


# Mixtral is there in 4 and 8 bits, and experts in float32 are in others.
NIGHTLY = {"mixtral"}


@pytest.fixture(scope="module", params=nightly_but(lambda name: name not in NIGHTLY, MODELS))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, stages = (tmp_path_factory.mktemp(name) for name in ("model", "stages"))
    return built_model(request.param, folder, stages)


def stacked(model: Any, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The checkpoint's tensors as the reference holds them."""
    unused = set(weights)
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensors[name] = np.full(tensor.shape, np.nan, np.float32)
        for source, part in checkpoint_tensors(model.config.model_type, name, tensors[name]):
            # A tied head has no tensor of its own.
            tied = "model.embed_tokens.weight" if source not in weights else source
            part[:] = weights[tied]
            unused.discard(tied)
    assert not unused
    return tensors


@pytest.fixture
def case(built: Any, request: pytest.FixtureRequest) -> Iterator[Case]:
    made, model, tolerance = built
    found = Case(made, model, tolerance, partial(stacked, model))
    yield found
    print(f"{request.node.name}: {found.worst:.1e}")


def test_every_position_of_a_prefill(case: Case) -> None:
    check_every_position(case)


def test_chunked_prefill_then_decode(case: Case) -> None:
    check_chunks_then_decoding(case)


def test_ragged_batches(case: Case) -> None:
    check_ragged_batches(case)
