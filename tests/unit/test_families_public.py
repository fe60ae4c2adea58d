"""Configs of real public models: their families, and as many parameters as their makers say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.find import load_family

QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
}
PHI4_MINI = {
    "model_type": "phi3",
    "vocab_size": 200064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "partial_rotary_factor": 0.75,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": True,
}
STABLELM2 = {
    "model_type": "stablelm",
    "vocab_size": 100352,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "partial_rotary_factor": 0.25,
    "use_qkv_bias": True,
}
REDPAJAMA = {
    "model_type": "gpt_neox",
    "vocab_size": 50432,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rotary_pct": 1.0,
    "rotary_emb_base": 10000,
    "use_parallel_residual": False,
}
MINICPM = {
    "model_type": "minicpm",
    "vocab_size": 122753,
    "hidden_size": 2304,
    "intermediate_size": 5760,
    "num_hidden_layers": 40,
    "num_attention_heads": 36,
    "num_key_value_heads": 36,
    "max_position_embeddings": 4096,
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 256,
}
PUBLIC: dict[str, tuple[dict[str, Any], int]] = {
    "Qwen2.5-0.5B": (
        {
            "model_type": "qwen2",
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "sliding_window": 32768,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
        },
        494_032_768,
    ),
    "Qwen3-1.7B": (QWEN3, 1_720_574_976),
    "Mistral-7B-v0.1": (
        {
            "model_type": "mistral",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
        },
        7_241_732_096,
    ),
    "Phi-4-mini": (PHI4_MINI, 3_836_021_760),
    "Phi-2": (
        {
            "model_type": "phi",
            "vocab_size": 51200,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "partial_rotary_factor": 0.4,
            "hidden_act": "gelu_new",
        },
        2_779_683_840,
    ),
    "RedPajama-INCITE-3B": (REDPAJAMA, 2_775_864_320),
    # Its makers' figure is 98,304 less: the biases of the norms in its 24 layers, which it has.
    "StableLM-2-1.6B": (STABLELM2, 1_644_515_328),
    "MiniCPM-2B": (MINICPM, 2_724_880_896),
}
# What each family has no code for, and the field that says so.
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (MINICPM, {"num_experts": 8}, "num_experts"),
    (MINICPM, {"sparse_config": {"kernel_size": 32}}, "sparse_config"),
    (REDPAJAMA, {"hidden_act": "mish"}, "hidden_act"),
    (PUBLIC["Phi-2"][0], {"tie_word_embeddings": True}, "tie_word_embeddings"),
    (QWEN3, {"rope_scaling": {"rope_type": "proportional"}}, "rope_parameters"),
]
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (QWEN3, {"num_key_value_heads": 7}, "num_key_value_heads"),
    (STABLELM2, {"num_attention_heads": 30}, "num_attention_heads"),
    (STABLELM2, {"partial_rotary_factor": 0.05}, "partial_rotary_factor"),
    (REDPAJAMA, {"num_key_value_heads": 8}, "num_key_value_heads"),
    (PHI4_MINI, {"original_max_position_embeddings": None}, "original_max_position_embeddings"),
    (
        PHI4_MINI,
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0]}},
        "rope_parameters.long_factor",
    ),
    (PHI4_MINI, {"rope_scaling": [1.0]}, "rope_scaling"),
]


@pytest.mark.parametrize("name", list(PUBLIC))
def test_a_public_model_has_as_many_parameters_as_published(name: str) -> None:
    config, published = PUBLIC[name]
    found = sum(math.prod(parameter.shape) for parameter in model_parameters(config))
    assert found == published


@pytest.mark.parametrize(("config", "change", "field"), REFUSED)
def test_what_has_no_code_is_refused_by_its_field(
    config: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        load_family(config).Config.from_hf({**config, **change})
    assert caught.value.where == f"config.json: {field}"


@pytest.mark.parametrize(("config", "change", "field"), WRONG)
def test_what_is_impossible_is_refused_by_its_field(
    config: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_family(config).Config.from_hf({**config, **change})
    assert caught.value.where == f"config.json: {field}"


def test_checkpoints_own_names_are_asked_for() -> None:
    names = {source.name for item in model_parameters(REDPAJAMA) for source in item.sources}
    assert {
        "gpt_neox.embed_in.weight",
        "gpt_neox.layers.31.attention.query_key_value.bias",
        "gpt_neox.layers.0.attention.dense.weight",
        "gpt_neox.layers.0.mlp.dense_4h_to_h.bias",
        "gpt_neox.final_layer_norm.bias",
        "embed_out.weight",
    } <= names
    assert not any("q_proj" in name or "lm_head" in name for name in names)
