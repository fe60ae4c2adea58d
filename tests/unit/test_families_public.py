"""Configs of real public models: their families, and as many parameters as their makers say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.find import load_family
from edgec.models.window import longest_context

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
QWEN25_VL = {
    "model_type": "qwen2_5_vl",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128000,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "tie_word_embeddings": False,
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}
PUBLIC["Qwen2.5-VL-7B"] = (QWEN25_VL, 8_292_166_656)


def with_vision(**changes: Any) -> dict[str, Any]:
    return {"vision_config": {**QWEN25_VL["vision_config"], **changes}}  # type: ignore[dict-item]


# What each family has no code for, and the field that says so.
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (MINICPM, {"num_experts": 8}, "num_experts"),
    (MINICPM, {"sparse_config": {"kernel_size": 32}}, "sparse_config"),
    (REDPAJAMA, {"hidden_act": "mish"}, "hidden_act"),
    (PUBLIC["Phi-2"][0], {"tie_word_embeddings": True}, "tie_word_embeddings"),
    (QWEN3, {"rope_scaling": {"rope_type": "proportional"}}, "rope_parameters"),
    (QWEN25_VL, {"use_sliding_window": True}, "use_sliding_window"),
    (QWEN25_VL, with_vision(hidden_act="gelu"), "vision_config.hidden_act"),
    (QWEN25_VL, with_vision(temporal_patch_size=1), "vision_config.temporal_patch_size"),
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
    (QWEN25_VL, {"vision_config": None}, "vision_config"),
    (
        QWEN25_VL,
        {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24]}},
        "rope_scaling.mrope_section",
    ),
    (
        QWEN25_VL,
        {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 25]}},
        "rope_scaling.mrope_section",
    ),
    (QWEN25_VL, with_vision(window_size=100), "vision_config.window_size"),
    (QWEN25_VL, with_vision(num_heads=24), "vision_config.num_heads"),
    (QWEN25_VL, with_vision(out_hidden_size=2048), "vision_config.out_hidden_size"),
    (QWEN25_VL, with_vision(fullatt_block_indexes="7"), "vision_config.fullatt_block_indexes"),
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


def test_a_section_for_the_text_says_the_same() -> None:
    """Newer files of transformers have the language model's fields in a section."""
    text = {name: value for name, value in QWEN25_VL.items() if name not in _WHOLE}
    whole = {name: value for name, value in QWEN25_VL.items() if name in _WHOLE}
    apart = {**whole, "text_config": {**text, "model_type": "qwen2_5_vl_text"}}
    assert model_parameters(apart) == model_parameters(QWEN25_VL)
    assert longest_context(apart) == 128000


_WHOLE = {"model_type", "vision_config", "tie_word_embeddings"}
