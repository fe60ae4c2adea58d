"""Families with a mixture of experts: what they read of configs, and what they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.layouts.specs import TensorSpec, decode_bytes
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.parameters import Parameter
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import find_scheme
from edgec.verification.stacked_experts import checkpoint_tensors

COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
MIXTRAL = {**COMMON, "model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2}
QWEN = {
    **COMMON,
    "model_type": "qwen3_moe",
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}


def parameters(config: dict[str, Any]) -> dict[str, Parameter]:
    return {item.name: item for item in model_parameters(config)}


def test_experts_are_one_matrix_made_of_the_checkpoints() -> None:
    found = parameters(MIXTRAL)
    gate_up = found["model.layers.1.mlp.experts.gate_up_proj.weight"]
    assert gate_up.shape == (3 * 96, 32)
    assert (gate_up.decode_rows, gate_up.matrices) == (2 * 96, 3)
    prefix = "model.layers.1.block_sparse_moe.experts"
    assert [source.name for source in gate_up.sources] == [
        f"{prefix}.{expert}.{name}.weight" for expert in range(3) for name in ("w1", "w3")
    ]
    down = found["model.layers.1.mlp.experts.down_proj.weight"]
    assert down.shape == (3 * 32, 48)
    assert [source.name for source in down.sources] == [f"{prefix}.{i}.w2.weight" for i in range(3)]
    router = found["model.layers.1.mlp.gate.weight"]
    assert router.sources[0].name == "model.layers.1.block_sparse_moe.gate.weight"


def test_routers_are_not_quantized() -> None:
    found = model_parameters(MIXTRAL)
    schemes = tensor_schemes(found, find_scheme("q4f16_1"), 16)
    plain = {name.rpartition("layers.0.")[2] for name, scheme in schemes.items() if scheme is None}
    assert "mlp.gate.weight" in plain
    assert "mlp.experts.down_proj.weight" not in plain


@pytest.mark.parametrize(
    ("fields", "sparse"),
    [
        ({}, [0, 1, 2, 3]),
        ({"decoder_sparse_step": 2}, [1, 3]),
        ({"mlp_only_layers": [0, 2]}, [1, 3]),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1]),
    ],
)
def test_layers_without_experts_have_an_mlp(fields: dict[str, Any], sparse: list[int]) -> None:
    found = parameters({**QWEN, **fields})
    assert [i for i in range(4) if f"model.layers.{i}.mlp.gate.weight" in found] == sparse
    dense = [i for i in range(4) if f"model.layers.{i}.mlp.down_proj.weight" in found]
    assert sorted(dense + sparse) == [0, 1, 2, 3]


def test_the_newer_name_of_the_number_of_experts() -> None:
    newer = {**QWEN, "num_local_experts": 7}
    del newer["num_experts"]
    assert parameters(newer)["model.layers.0.mlp.gate.weight"].shape == (7, 32)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**MIXTRAL, "num_experts_per_tok": 4}, "num_experts_per_tok"),
        ({**QWEN, "num_experts_per_tok": 6}, "num_experts_per_tok"),
        ({**QWEN, "mlp_only_layers": 3}, "mlp_only_layers"),
        ({**QWEN, "mlp_only_layers": ["3"]}, "mlp_only_layers"),
        ({**QWEN, "decoder_sparse_step": 0}, "decoder_sparse_step"),
    ],
)
def test_impossible_configs(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parameters(config)


@pytest.mark.parametrize("config", [MIXTRAL, QWEN], ids=lambda item: str(item["model_type"]))
def test_other_activations_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="hidden_act"):
        parameters({**config, "hidden_act": "gelu"})


def test_a_decode_step_reads_the_chosen_experts() -> None:
    experts = Parameter("experts.weight", (8 * 6, 4), "linear", (), decode_rows=2 * 6)
    head = Parameter("head.weight", (4, 4), "head", ())
    specs = [
        TensorSpec("experts.q_weight", (48, 2), "uint32", "experts.weight"),
        TensorSpec("experts.q_scale", (48, 1), "float16", "experts.weight"),
        TensorSpec("head.weight", (4, 4), "float16", "head.weight"),
    ]
    assert decode_bytes(specs, [experts, head]) == 12 * (8 + 2) + 32


@pytest.mark.parametrize("config", [MIXTRAL, QWEN], ids=lambda item: str(item["model_type"]))
def test_stacked_experts_have_the_names_of_the_checkpoint(config: dict[str, Any]) -> None:
    found = parameters(config)
    expected = {
        source.name: source.shape
        for name, item in found.items()
        if ".layers.0.mlp" in name
        for source in item.sources
    }
    gate_up = found["model.layers.0.mlp.experts.gate_up_proj.weight"]
    down = found["model.layers.0.mlp.experts.down_proj.weight"]
    router = found["model.layers.0.mlp.gate.weight"]
    experts = router.shape[0]
    prefix = "model.layers.0.mlp"
    tensors = {
        f"{prefix}.experts.gate_up_proj": np.zeros((experts, gate_up.shape[0] // experts, 32)),
        f"{prefix}.experts.down_proj": np.zeros((experts, 32, down.shape[1])),
        f"{prefix}.gate.weight": np.zeros(router.shape),
    }
    named = [
        (name, part.shape)
        for stacked, tensor in tensors.items()
        for name, part in checkpoint_tensors(
            str(config["model_type"]), stacked, tensor.astype(np.float32)
        )
    ]
    assert dict(named) == expected
    assert len(named) == len(expected)
