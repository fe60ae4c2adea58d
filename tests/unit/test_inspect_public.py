"""What ``edgec inspect`` says of public models: supported, or the nearest family and what it lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cli_calls import call
from public_configs import OTHERS, SUPPORTED

from edgec.inspection.facts import config_facts
from edgec.inspection.features import FAMILY_FEATURES, config_features
from edgec.inspection.nearest import nearest_family

if TYPE_CHECKING:
    from pathlib import Path

# With every family but the model's own: the nearest one, and what it lacks.
NEAREST: dict[str, tuple[str, list[str]]] = {
    "Llama-4-Scout": ("mixtral", ["attention in chunks", "images", "layers without positions"]),
    "DeepSeek-V3": ("mixtral", ["latent attention", "shared experts"]),
    "Mamba-130m": ("llama", ["state-space layers", "LayerNorm"]),
    "T5-small": (
        "gemma",
        ["an encoder", "positions that are learned", "positions as biases", "LayerNorm"],
    ),
    "RWKV-4-169m": ("llama", ["recurrent layers", "LayerNorm"]),
    "Qwen2.5-VL-7B": ("qwen2", ["images", "another RoPE scaling"]),
    "GPT-2": ("gpt_neox", ["positions that are learned"]),
    "Falcon-7B": ("gpt_neox", []),
    "Bloom-560m": ("gpt_neox", ["positions as biases", "a norm behind the embedding"]),
    "OLMo-2-7B": ("qwen3", ["norms behind blocks"]),
    "Granite-3.1-2B": ("minicpm", []),
    "Command-R": ("minicpm", ["LayerNorm", "attention and MLP side by side"]),
    "gpt-oss-20b": (
        "mixtral",
        ["layers of several kinds", "sinks in attention"],
    ),
    "Mixtral-8x7B": ("qwen3_moe", []),
    "BERT-base": ("gpt_neox", ["positions that are learned", "an encoder"]),
    "LFM2-1.2B": ("llama", ["convolutions between tokens"]),
    "Nemotron-mini-4B": ("gpt_neox", ["norms with an offset"]),
}
# What a person reads where there is no family but llama.
LINES = {
    "Llama-4-Scout": (
        "llama, which lacks attention in chunks (attention_chunk_size: 8192), experts"
        " (num_local_experts: 16), images (vision_config), layers without positions"
        " (no_rope_layers)"
    ),
    "DeepSeek-V3": (
        "llama, which lacks latent attention (kv_lora_rank: 512), experts (n_routed_experts: 256),"
        " shared experts (n_shared_experts: 1)"
    ),
    "GPT-2": (
        "llama, which lacks positions that are learned (n_positions: 1024), LayerNorm"
        ' (layer_norm_epsilon: 1e-05), another activation (activation_function: "gelu_new"), an'
        ' MLP without gate (model_type: "gpt2")'
    ),
    "Granite-3.1-2B": "llama, which lacks scales (embedding_multiplier: 12.0)",
    "Mixtral-8x7B": "llama, which lacks experts (num_local_experts: 8)",
}


def write(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return str(file)


def test_there_are_twenty() -> None:
    assert len(SUPPORTED) + len(OTHERS) >= 20
    assert OTHERS.keys() == NEAREST.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_the_nearest_family_and_what_it_lacks(name: str) -> None:
    config = OTHERS[name]
    found = nearest_family(config, FAMILY_FEATURES.keys() - {config["model_type"]})
    assert found is not None
    assert (found.family, [feature.name for feature in found.lacks]) == NEAREST[name]
    inner = config.get("text_config", {})
    for feature in found.lacks:
        assert feature.field.split(".")[0] in {**config, **inner}


@pytest.mark.parametrize("name", OTHERS)
def test_inspect_refuses_what_only_llama_can_not_build(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("edgec.models.find", "edgec.inspection.model"):
        monkeypatch.setattr(f"{module}.families", lambda: ["llama"])
    called = call("inspect", write(tmp_path, OTHERS[name]), "--json")
    assert called.code == 3, called.out
    data = called.data
    assert not data["supported"]
    model_type = OTHERS[name]["model_type"]
    assert data["unsupported"]["where"] == "config.json: model_type"
    assert f"architecture {model_type!r} is not supported" in data["unsupported"]["what"]
    assert data["nearest"]["family"] == "llama"
    assert data["nearest"]["lacks"]
    if name in LINES:
        lines = call("inspect", write(tmp_path, OTHERS[name])).out.splitlines()
        assert [line.split(None, 1)[1] for line in lines if line.startswith("nearest")] == [
            LINES[name]
        ]


@pytest.mark.parametrize("name", SUPPORTED)
def test_inspect_knows_what_it_can_build(name: str, tmp_path: Path) -> None:
    config, parameters = SUPPORTED[name]
    called = call("inspect", write(tmp_path, config), "--json")
    assert called.code == 0, called.err
    data = called.data
    assert (data["supported"], data["family"], data["nearest"]) == (True, "llama", None)
    assert data["parameters"] == parameters


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({}, 1),
        ({"model_type": 3}, 1),
        ({"model_type": "llama"}, 1),
        ({**SUPPORTED["TinyLlama-1.1B"][0], "hidden_act": "gelu"}, 3),
        ({**SUPPORTED["TinyLlama-1.1B"][0], "num_key_value_heads": 5}, 1),
    ],
)
def test_exit_codes_of_other_configs(config: dict[str, Any], code: int, tmp_path: Path) -> None:
    called = call("inspect", write(tmp_path, config))
    assert called.code == code
    assert "config.json: " in called.err + called.out


def test_facts_of_architectures_with_other_names() -> None:
    facts = config_facts(OTHERS["GPT-2"])
    assert (facts["layers"], facts["hidden_size"], facts["heads"]) == (12, 768, 12)
    assert (facts["head_dim"], facts["context_length"]) == (64, 1024)
    facts = config_facts(OTHERS["Llama-4-Scout"])
    assert (facts["model_type"], facts["layers"], facts["vocab_size"]) == ("llama4", 48, 202048)
    assert config_facts(OTHERS["T5-small"])["intermediate_size"] == 2048


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, None, True, -3, 1.5, []])
def test_nonsense_has_features_or_none(value: Any) -> None:
    fields = {field for config in OTHERS.values() for field in config}
    config = dict.fromkeys(fields, value)
    assert isinstance(config_features(config), list)
    assert nearest_family(config, ["llama"]) is not None
    assert nearest_family(config, ["unheard-of"]) is None
