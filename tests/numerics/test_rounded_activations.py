"""A model in tiles, whose kernels round activations to 8 bits, against torch with and without that."""

from __future__ import annotations

from fnmatch import fnmatch
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.verification.rounding import rounding
from edgec.verification.statistics import Comparison
from edgec.verification.tolerance import ROUNDED_TIMES
from numerics.family_case import FLOAT16, FLOAT32, Case, check_halves, tokens_of
from numerics.test_expert_families import stacked
from numerics.tiny_models import CHUNK, SIZES, build, save_random_model
from on_every_change import nightly_but

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

LLAMA = "LlamaConfig"
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], float]] = {
    "tied head, both widths, plain layers between": (
        LLAMA,
        {"tie_word_embeddings": True, "vocab_size": 301},
        {
            "scheme": "q4f32_1",
            "overrides": [
                {"match": "model.layers.0.mlp.*", "bits": 8, "group_size": 64},
                {"match": "*.o_proj.*", "bits": 16, "group_size": None},
            ],
        },
        FLOAT32,
    ),
    "half precision": (LLAMA, {"tie_word_embeddings": False}, {"scheme": "q4f16_1"}, FLOAT16),
    # Where two experts are close, rounding may choose another one: here a token takes all.
    "experts, both widths": (
        "MixtralConfig",
        {"num_local_experts": 3, "num_experts_per_tok": 3},
        {
            "scheme": "q4f32_1",
            "overrides": [{"match": "*.experts.down_proj.*", "bits": 8, "group_size": 64}],
        },
        FLOAT32,
    ),
}


def groups_of(model: Any, quantization: dict[str, Any]) -> dict[int, int]:
    """The layers that round, by the scheme alone."""
    groups = {}
    for name, weight in model.named_parameters():
        if weight.ndim == 1 or "router" in name or "mlp.gate." in name:
            continue
        found = [o for o in quantization.get("overrides", ()) if fnmatch(f"{name}.", o["match"])]
        group = found[0]["group_size"] if found else 32
        if group is not None:
            groups[weight.data_ptr()] = group
    return groups


@pytest.mark.parametrize("name", nightly_but(lambda name: "half" not in name, CASES))
def test_it_is_as_far_from_no_rounding_as_torch_is(name: str, tmp_path: Path) -> None:
    import transformers  # noqa: PLC0415

    kind, settings, quantization, close = CASES[name]
    config = getattr(transformers, kind)(**{**SIZES, "num_key_value_heads": 2, **settings})
    model = save_random_model(config, tmp_path / "model", seed=7)
    built = build(tmp_path / "model", tmp_path / "stages", layout="dot4", **quantization)
    case = Case(built, model, close, partial(stacked, model))
    tokens = tokens_of(CHUNK - 3)
    plain = case.reference(tokens)
    with rounding(groups_of(model, quantization)):
        rounded = case.reference(tokens)
    measure = np.abs(rounded - plain).max()
    scale = np.abs(plain).max()
    limit = close * scale + ROUNDED_TIMES * measure
    assert 0 < measure < 0.1 * scale

    case.engine.add(0)
    found = case.engine.all_logits(0, tokens)
    assert np.abs(found - plain).max() < limit
    torch, artifact = Comparison("", ""), Comparison("", "")
    torch.update(plain, rounded, tokens)
    artifact.update(plain, found, tokens)
    assert 0.5 < artifact.summary()["kl"] / torch.summary()["kl"] < 2

    check_halves(case.engine, tokens, plain, limit)
