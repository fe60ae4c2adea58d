"""The recipes of public models: what their configs make is what was published."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from cli_calls import call

from edgec import resources
from edgec.artifacts.conversation import load_template
from edgec.checkpoints.hub import parse_source
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.find import families, family_name
from edgec.recipe import find_recipe, list_recipes, load_recipe

# Parameters by the model's safetensors files, tied tensors counted once.
PUBLISHED = {
    "gemma2-2b": 2_614_341_888,
    "gemma3-1b": 999_885_952,
    "llama32-1b": 1_235_814_400,
    "llama32-3b": 3_212_749_824,
    "minicpm-2b": 2_724_880_896,
    "minicpm4-8b": 8_190_000_000,  # the hub rounds it
    "mistral-7b": 7_248_023_552,
    "phi4mini": 3_836_021_760,
    "qwen25-0.5b": 494_032_768,
    "qwen25-1.5b": 1_543_714_304,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-30b-a3b": 30_532_122_624,
    "smollm2-360m": 361_821_120,
}
EACH = pytest.mark.parametrize("name", PUBLISHED)


def read_config(name: str) -> dict[str, Any]:
    file = resources.folder("recipes") / name / "config.json"
    config: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return config


def counted(config: dict[str, Any]) -> int:
    """Parameters of a decoder by hand: what the shapes of all these architectures have in common."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    if config["model_type"] == "qwen2":
        attention += head_dim * (heads + 2 * kv_heads)
    experts = config.get("num_experts", 0)
    width = config["moe_intermediate_size"] if experts else config["intermediate_size"]
    mlp = (experts or 1) * 3 * hidden * width + experts * hidden
    norms = 4 * hidden if config["model_type"].startswith("gemma") else 2 * hidden
    if config["model_type"] in ("qwen3", "qwen3_moe", "gemma3_text"):
        norms += 2 * head_dim
    tables = config["vocab_size"] * hidden * (1 if config["tie_word_embeddings"] else 2)
    return int(tables + layers * (attention + mlp + norms) + hidden)


def test_all_of_them_are_here() -> None:
    assert set(list_recipes()) == {*PUBLISHED, "tinypy"}


@EACH
def test_the_config_makes_a_model_of_the_published_size(name: str) -> None:
    config = read_config(name)
    exact = PUBLISHED[name] % 1_000_000 != 0
    assert counted(config) == pytest.approx(PUBLISHED[name], rel=0 if exact else 0.005)
    assert config["model_type"] in families()
    parameters = sum(math.prod(item.shape) for item in model_parameters(config))
    assert parameters == pytest.approx(PUBLISHED[name], rel=0.005)


@EACH
def test_the_recipe_fits_its_model(name: str) -> None:
    loaded = load_recipe(find_recipe(name))
    recipe, config = loaded.recipe, read_config(name)
    assert recipe.name == name
    assert recipe.context.length is not None
    assert recipe.context.length <= config["max_position_embeddings"]
    assert parse_source(recipe.model.source).repository.count("/") == 1
    load_template(recipe.chat.template or "none is named")
    # Half a byte and a sixteenth for the scales: a budget below would refuse every build.
    least = PUBLISHED[name] * 4.5 / 8 / 2**20
    assert least < (recipe.budget.artifact_mb or 0) < 1.4 * least + 100
    assert least < (recipe.budget.memory_mb or 0)
    assert load_recipe(find_recipe(name), synthetic=True).recipe.model.source == (
        f"synthetic:{name}/config.json"
    )


@EACH
def test_rotary_factors_are_one_for_each_pair(name: str) -> None:
    config = read_config(name)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    pairs = int(head_dim * config.get("partial_rotary_factor", 1)) // 2
    scaling = config.get("rope_scaling") or {}
    for field in ("long_factor", "short_factor"):
        factors = scaling.get(field, [1.0] * pairs)
        assert len(factors) == pairs
        assert sorted(factors) == factors
        assert factors[0] == pytest.approx(1, abs=0.01)


def test_what_has_no_family_yet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.models.find.families", lambda: ["llama"])
    assert family_name(read_config("llama32-1b")) == "llama"
    called = call("plan", "phi4mini", "--weights", "synthetic", "-t", "x86-64-v3")
    assert called.code == 3
    assert "architecture 'phi3' is not supported; supported families: llama" in called.err
