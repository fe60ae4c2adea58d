"""Every kind of rotary embedding against transformers, on both sides of its original length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402 - after load_tvm

from edgec.models.rope_at_length import config_at_length  # noqa: E402
from edgec.models.rope_config import rope_from_config  # noqa: E402
from edgec.scheduling.kernels.split_rotary import split_rotary  # noqa: E402

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")

HEADS, KV_HEADS, HEAD_DIM, ORIGINAL = 3, 1, 128, 4096
BASE: dict[str, Any] = {
    "model_type": "stablelm",
    "vocab_size": 64,
    "hidden_size": HEADS * HEAD_DIM,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 8 * ORIGINAL,
    "partial_rotary_factor": 0.75,
    "rope_theta": 10000.0,
    "pad_token_id": 0,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": ORIGINAL,
}
KINDS: dict[str, dict[str, Any]] = {
    "longrope, as phi-4-mini has it": {
        "model_type": "phi3",
        "original_max_position_embeddings": ORIGINAL,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0 + 0.01 * pair for pair in range(48)],
            "long_factor": [1.0 + 1.2 * pair for pair in range(48)],
        },
    },
    "yarn": {"rope_scaling": YARN},
    "yarn, all numbers named, newer spelling": {
        "rope_theta": None,
        "rope_parameters": {
            **YARN,
            "rope_theta": 1e6,
            "partial_rotary_factor": 0.5,
            "beta_fast": 24,
            "beta_slow": 2,
            "attention_factor": 1.25,
            "truncate": False,
        },
    },
    "yarn, as DeepSeek names its amplitude": {
        "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7},
    },
    "yarn, where the factor sets in at once": {
        "rope_scaling": {**YARN, "original_max_position_embeddings": 6},
    },
    "yarn, without an original length": {
        "max_position_embeddings": ORIGINAL,
        "rope_scaling": {"type": "yarn", "factor": 4.0},
    },
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {
        "max_position_embeddings": ORIGINAL,
        "rope_scaling": {"type": "dynamic", "factor": 4.0},
    },
    "llama3": {
        "rope_scaling": {
            **YARN,
            "rope_type": "llama3",
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        }
    },
}
LAST = [0, 17, ORIGINAL - 1, ORIGINAL, 4 * ORIGINAL - 1]


def turned_by_transformers(
    config: dict[str, Any], qkv: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys as transformers turns them in a text that ends at the last position."""
    from transformers import Phi3Config, StableLmConfig  # noqa: PLC0415 - only these tests need it
    from transformers.models.phi3 import modeling_phi3  # noqa: PLC0415
    from transformers.models.stablelm import modeling_stablelm  # noqa: PLC0415

    # Phi-3's knows no other kind, StableLM's not this one.
    embedding: Any
    if config["model_type"] == "phi3":
        embedding = modeling_phi3.Phi3RotaryEmbedding(Phi3Config.from_dict(config))
    else:
        embedding = modeling_stablelm.StableLmRotaryEmbedding(StableLmConfig.from_dict(config))
    heads = torch.from_numpy(qkv).transpose(0, 1)[None]
    cosine, sine = embedding(heads, torch.from_numpy(positions.astype(np.int64))[None])
    queries, keys = modeling_phi3.apply_rotary_pos_emb(
        heads[:, :HEADS], heads[:, HEADS : HEADS + KV_HEADS], cosine, sine
    )
    return queries[0].transpose(0, 1).numpy(), keys[0].transpose(0, 1).numpy()


def problem(last: int) -> tuple[np.ndarray, np.ndarray]:
    positions = np.unique(np.linspace(0, last, 9).astype(np.int32))
    random = np.random.default_rng(0)
    return positions, random.standard_normal(
        (len(positions), HEADS + 2 * KV_HEADS, HEAD_DIM), np.float32
    )


def tolerance(last: int) -> float:
    """Both know an angle of some thousand radians to 2^-24 of it."""
    return 1e-5 + 1e-6 * last


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_and_amplitude_are_those_of_transformers(kind: str, last: int) -> None:
    config = {**BASE, **KINDS[kind]}
    positions, qkv = problem(last)
    rope = rope_from_config(config, HEAD_DIM).at_length(last + 1)
    half, rotary = rope.rotary_dim // 2, rope.rotary_dim
    angles = positions[:, None, None] * np.array(rope.inverse_frequencies())
    cosine, sine = np.cos(angles) * rope.amplitude, np.sin(angles) * rope.amplitude
    low, high = qkv[..., :half].astype(float), qkv[..., half:rotary].astype(float)
    turned = [low * cosine - high * sine, high * cosine + low * sine, qkv[..., rotary:]]
    found = np.concatenate(turned, axis=-1)
    queries, keys = turned_by_transformers(config, qkv, positions)
    for wanted, part in ((queries, found[:, :HEADS]), (keys, found[:, HEADS : HEADS + KV_HEADS])):
        np.testing.assert_allclose(part, wanted, atol=tolerance(last), rtol=0)


@pytest.mark.parametrize("length", [ORIGINAL, 2 * ORIGINAL])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_of_a_library_turns_short_texts_as_it_does(kind: str, length: int) -> None:
    """Where transformers would choose by the text, its config is one that leaves no choice."""
    config = {**BASE, **KINDS[kind]}
    fixed = config_at_length(config, length)
    wanted = rope_from_config(config, HEAD_DIM).at_length(length)
    assert rope_from_config(fixed, HEAD_DIM).at_length(17) == wanted
    positions, qkv = problem(17)
    whole = np.append(positions, np.int32(length - 1))
    long = np.concatenate([qkv, qkv[:1]])
    queries, keys = turned_by_transformers(config, long, whole)
    for found, expected in zip(
        turned_by_transformers(fixed, qkv, positions), (queries, keys), strict=True
    ):
        np.testing.assert_allclose(found, expected[:-1], atol=tolerance(17), rtol=0)


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith(("yarn", "longrope"))])
def test_the_rotation_of_factors_turns_so(kind: str, last: int) -> None:
    config = {**BASE, **KINDS[kind]}
    positions, qkv = problem(last)
    rope = rope_from_config(config, HEAD_DIM).at_length(last + 1)
    queries, keys, values = _rotate(qkv, positions, rope)
    wanted = turned_by_transformers(config, qkv, positions)
    for found, expected in zip((queries, keys), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance(last), rtol=0)
    np.testing.assert_array_equal(values, qkv[:, HEADS + KV_HEADS :])


def _rotate(qkv: Any, positions: Any, rope: Any) -> list[Any]:
    function = split_rotary(HEADS, KV_HEADS, HEAD_DIM, rope, "float32")
    function = function.with_attr("global_symbol", "rotate")
    module = tvm.compile(tvm.IRModule({"rotate": function}), target={"kind": "llvm"})
    factors = np.array(2 * rope.factors(), np.float32)
    outputs = [
        tvm.runtime.tensor(np.zeros((len(positions), heads, HEAD_DIM), np.float32))
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    inputs = [tvm.runtime.tensor(item) for item in (qkv, positions)]
    module["rotate"](*inputs, *outputs, tvm.runtime.tensor(factors))
    return [item.numpy() for item in outputs]
