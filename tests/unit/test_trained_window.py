"""What a model was trained to see of a text bounds the context of its library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from recipe_texts import MINIMAL

from edgec.errors import UsageError
from edgec.models.window import longest_context, trained_window
from edgec.pipeline.filedigests import FileDigests
from edgec.pipeline.plan import plan_build
from edgec.pipeline.store import Store
from edgec.recipe import load_recipe
from edgec.target import load_target

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.pipeline.plan import BuildPlan

MISTRAL = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "sliding_window": 128,
}


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (MISTRAL, 128),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "phi3", "sliding_window": 2047}, 2047),
        ({"model_type": "qwen2", "sliding_window": 128}, None),
        ({"model_type": "qwen2", "sliding_window": 128, "use_sliding_window": False}, None),
        ({"model_type": "qwen3", "sliding_window": 128, "use_sliding_window": True}, 128),
        # Only some layers have it.
        ({"model_type": "gemma2", "sliding_window": 128}, None),
    ],
)
def test_which_window_holds_for_all_layers(config: dict[str, Any], window: int | None) -> None:
    assert trained_window(config) == window


@pytest.mark.parametrize(
    ("change", "length"),
    [
        ({}, 128),
        ({"sliding_window": None}, 512),
        ({"sliding_window": 4096}, 512),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 128),
    ],
)
def test_it_bounds_the_context(change: dict[str, Any], length: int) -> None:
    assert longest_context({**MISTRAL, **change}) == length
    assert longest_context({"model_type": "mistral", "sliding_window": 128}) is None


def _plan(folder: Path, context: str) -> BuildPlan:
    (folder / "config.json").write_text(json.dumps(MISTRAL))
    (folder / "tokenizer.json").write_text("{}")
    path = folder / "r.yaml"
    path.write_text(MINIMAL.replace("source: small", "source: synthetic:config.json") + context)
    store = Store(folder / "store")
    return plan_build(load_recipe(path), load_target("x86-64-v3"), FileDigests(store), verify=False)


def test_a_context_that_is_left_out_ends_with_the_window(tmp_path: Path) -> None:
    assert _plan(tmp_path, "").context_length == 128


def test_a_longer_context_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _plan(tmp_path, "context: {length: 256}\n")
    assert str(caught.value).endswith(
        "context.length: 256 is more than the 128 tokens that each token of this model sees; write at"
        " most 128, or leave it out; with context.sliding_window the text may become longer than that"
    )


def test_with_a_window_of_the_recipe_the_text_goes_on_within_the_trained_one(
    tmp_path: Path,
) -> None:
    plan = _plan(tmp_path, "context: {sliding_window: 96}\n")
    assert plan.window is not None
    assert plan.window.size + plan.prefill_chunk <= 128
