"""A small model of every architecture, converted to GGUF and read back: tensors and config alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.checkpoints.gguf.checkpoint import GgufCheckpoint
from edgec.models.find import families, family_name, load_family
from gguf_converter import convert
from numerics.tiny_models import save_random_model

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("gguf")
pytestmark = pytest.mark.slow

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.9],
    "long_factor": [1.1, 1.5, 2.3, 4.7, 9.1, 21.25],
    "original_max_position_embeddings": 64,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_hidden_layers": 3, "rope_parameters": LLAMA3}),
    "llama, biases, tied": (
        "Llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 32},
    ),
    "minicpm": (
        "Llama",
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "head_dim": 32,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
    ),
    "phi": ("Phi", {"partial_rotary_factor": 0.5}),
    "phi3": (
        "Phi3",
        {
            "rope_parameters": LONGROPE,
            "original_max_position_embeddings": 64,
            "sliding_window": 128,
        },
    ),
    "gemma": ("Gemma", {"head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}),
    "gemma2": ("Gemma2", {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32}),
    "gemma3_text": (
        "Gemma3Text",
        {
            "head_dim": 32,
            "sliding_window": 64,
            "query_pre_attn_scalar": 32,
            "num_hidden_layers": 7,
        },
    ),
    "stablelm": (
        "StableLm",
        {"partial_rotary_factor": 0.25, "use_qkv_bias": True, "use_parallel_residual": False},
    ),
    "gpt_neox": (
        "GPTNeoX",
        {"rotary_pct": 0.25, "use_parallel_residual": True, "num_key_value_heads": None},
    ),
}
MINICPM = {
    "model_type": "minicpm",
    "architectures": ["MiniCPMForCausalLM"],
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 16,
}


def saved(folder: Path, name: str) -> dict[str, Any]:
    """The model folder of a case; returns its config."""
    import transformers  # noqa: PLC0415

    kind, fields = CASES[name]
    values = {key: item for key, item in {**SIZES, **fields}.items() if item is not None}
    config = getattr(transformers, f"{kind}Config")(**values)
    save_random_model(config, folder, seed=3)
    written = json.loads((folder / "config.json").read_text())
    if name == "minicpm":
        written |= MINICPM
        (folder / "config.json").write_text(json.dumps(written))
    return dict(written)


@pytest.mark.parametrize("name", CASES)
def test_what_was_converted_is_read_back(tmp_path: Path, name: str) -> None:
    config = saved(tmp_path / "model", name)
    tensors = convert(tmp_path / "model", tmp_path / "model.gguf")
    checkpoint = GgufCheckpoint(tmp_path / "model.gguf")
    assert checkpoint.names() == sorted(tensors)
    for tensor, values in tensors.items():
        assert checkpoint.info(tensor).shape == values.shape
        found = checkpoint.rows(tensor, 0, values.shape[0])
        # Gemma's norms were stored as the sum with 1, which is rounded.
        lowered = config["model_type"].startswith("gemma") and tensor.endswith("norm.weight")
        np.testing.assert_allclose(found, values, rtol=0, atol=2.0**-23 if lowered else 0)
        some = slice(values.shape[0] // 3, values.shape[0] - 1)
        np.testing.assert_array_equal(checkpoint.rows(tensor, some.start, some.stop), found[some])
    assert checkpoint.config["model_type"] == config["model_type"]
    if config["model_type"] in families():
        family = load_family(config)
        assert family_name(checkpoint.config) == family_name(config)
        assert family.Config.from_hf(checkpoint.config) == family.Config.from_hf(config)
    told = {key for key, value in config.items() if value is not None} - {"architectures"}
    same = checkpoint.config.keys() & told
    assert {key: checkpoint.config[key] for key in same} == {key: config[key] for key in same}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"factor": 32.0, "original_max_position_embeddings": 8192, "rope_theta": 10000.0},
        {"high_freq_factor": 6.5, "original_max_position_embeddings": 1000},
        {"high_freq_factor": 3.0, "factor": 3.3, "original_max_position_embeddings": 777},
    ],
)
def test_the_rule_of_llama_3_is_found_from_its_results(
    tmp_path: Path, change: dict[str, float]
) -> None:
    rule = {**LLAMA3, **change}
    fields = {"head_dim": 64, "max_position_embeddings": 16384, "rope_parameters": rule}
    CASES["changed"] = ("Llama", fields)
    saved(tmp_path / "model", "changed")
    convert(tmp_path / "model", tmp_path / "model.gguf")
    config = GgufCheckpoint(tmp_path / "model.gguf").config
    theta = rule.pop("rope_theta")
    assert config["rope_scaling"] == rule
    assert config["rope_theta"] == theta
