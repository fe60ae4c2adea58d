"""What configs of Gemma 2 and Gemma 3 mean, in the spellings that were published, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from edgec import resources
from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.find import load_family
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.rope import Rope


def published(name: str) -> dict[str, Any]:
    file = resources.folder("recipes") / name / "config.json"
    config: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return config


GEMMA2, GEMMA3 = published("gemma2-2b"), published("gemma3-1b")
# As transformers 5 writes Gemma 3's config.
NEW = {
    **{
        name: value
        for name, value in GEMMA3.items()
        if name
        not in {"rope_theta", "rope_scaling", "rope_local_base_freq", "sliding_window_pattern"}
    },
    "layer_types": ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(26)],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000},
    },
}


def read(config: dict[str, Any]) -> Any:
    return load_family(config).Config.from_hf(config)


def cache(config: dict[str, Any]) -> KVCacheSpec:
    spec: KVCacheSpec = load_family(config).build(read(config), "float16").cache_spec
    return spec


def test_gemma2_alternates() -> None:
    config = read(GEMMA2)
    assert config.local == (True, False) * 13
    assert (config.window, config.scale) == (4096, 1 / 16)
    spec = cache(GEMMA2)
    assert (spec.soft_cap, spec.local_window, spec.rotates) == (50.0, 4096, True)
    assert KVCacheSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert not spec.plain
    assert not spec.slides


@pytest.mark.parametrize(
    ("change", "caps"),
    [
        ({}, (50.0, 30.0)),
        ({"attn_logit_softcapping": None}, (None, 30.0)),
        ({"final_logit_softcapping": None, "attn_logit_softcapping": 20}, (20.0, None)),
    ],
)
def test_no_cap_is_not_the_same_as_the_usual_one(change: dict[str, Any], caps: Any) -> None:
    bare = {name: value for name, value in GEMMA2.items() if "softcapping" not in name}
    config = read({**bare, **change})
    assert (config.score_cap, config.logit_cap) == caps


def test_gemma3_has_two_rotary_embeddings_in_both_spellings() -> None:
    old = read(GEMMA3)
    assert old == read(NEW)
    assert (old.rope, old.local_rope) == (Rope(1e6, 256), Rope(1e4, 256))
    assert [index for index, local in enumerate(old.local) if not local] == [5, 11, 17, 23]
    spec = cache(GEMMA3)
    assert (spec.soft_cap, spec.local_window, spec.rotates) == (None, 512, False)
    assert read({**GEMMA3, "final_logit_softcapping": 30}).logit_cap == 30


def test_gemma3_stretches_its_global_layers_only() -> None:
    """The larger models."""
    scaling = {"rope_type": "linear", "factor": 8.0}
    old = read({**GEMMA3, "rope_scaling": scaling})
    full = {**NEW["rope_parameters"]["full_attention"], **scaling}
    new = read({**NEW, "rope_parameters": {**NEW["rope_parameters"], "full_attention": full}})
    assert old == new
    assert old.local_rope == Rope(1e4, 256)
    plain = Rope(1e6, 256).inverse_frequencies()
    assert old.rope.inverse_frequencies() == pytest.approx([turn / 8 for turn in plain])


@pytest.mark.slow
def test_transformers_reads_the_same() -> None:
    transformers = pytest.importorskip("transformers")
    for config in (GEMMA3, NEW):
        theirs = transformers.Gemma3TextConfig(**config)
        ours = read(config)
        assert [kind == "sliding_attention" for kind in theirs.layer_types] == list(ours.local)
        thetas = {kind: rope["rope_theta"] for kind, rope in theirs.rope_parameters.items()}
        assert thetas == {
            "full_attention": ours.rope.theta,
            "sliding_attention": ours.local_rope.theta,
        }
    theirs = transformers.Gemma2Config(**GEMMA2)
    assert [kind == "sliding_attention" for kind in theirs.layer_types] == list(read(GEMMA2).local)


def test_checkpoints_have_four_norms_in_a_layer() -> None:
    for config, of_heads in ((GEMMA2, 0), (GEMMA3, 2)):
        parameters = model_parameters(config)
        norms = [item for item in parameters if item.role == "norm"]
        assert len(norms) == 26 * (4 + of_heads) + 1
        assert all(source.offset == 1 for item in norms for source in item.sources)
        layer = {item.name for item in parameters if item.name.startswith("model.layers.3.")}
        assert "model.layers.3.post_feedforward_layernorm.weight" in layer
        assert math.prod(parameters[0].shape) == config["vocab_size"] * config["hidden_size"]


@pytest.mark.parametrize(
    ("config", "change", "field"),
    [
        (GEMMA2, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        (GEMMA2, {"hidden_activation": "silu"}, "hidden_activation"),
        (GEMMA2, {"layer_types": ["chunked_attention"] * 26}, "layer_types"),
        (GEMMA3, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        (GEMMA3, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ],
)
def test_what_has_no_code_is_refused_by_its_field(
    config: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read({**config, **change})
    assert caught.value.where == f"config.json: {field}"


@pytest.mark.parametrize(
    ("config", "change", "field"),
    [
        (GEMMA2, {"layer_types": ["full_attention"]}, "layer_types"),
        (GEMMA2, {"layer_types": "full_attention"}, "layer_types"),
        (GEMMA2, {"sliding_window": 0}, "sliding_window"),
        (GEMMA2, {"attn_logit_softcapping": -1}, "attn_logit_softcapping"),
        (GEMMA2, {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        (GEMMA3, {"sliding_window_pattern": "x"}, "sliding_window_pattern"),
        (GEMMA3, {"rope_local_base_freq": -1}, "rope_theta"),
        (GEMMA3, {"rope_parameters": [1]}, "rope_parameters"),
        (GEMMA3, {"rope_parameters": {"full_attention": 1}}, "rope_parameters.full_attention"),
    ],
)
def test_what_is_impossible_is_refused_by_its_field(
    config: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read({**config, **change})
    assert caught.value.where == f"config.json: {field}"


@pytest.mark.parametrize("config", [GEMMA2, GEMMA3])
def test_a_window_of_the_recipe_is_refused(config: dict[str, Any]) -> None:
    """Kernels for windows that slide know neither caps nor layers of several kinds."""
    spec = cache(config)
    from edgec.stages.compile import _check_window  # noqa: PLC0415 - a stage loads TVM by itself

    inputs = {"context.sliding_window": 512, "context.attention_sinks": 4}
    with pytest.raises(UnsupportedModelError, match="leave it out") as caught:
        _check_window(inputs, spec)
    assert caught.value.where == "context.sliding_window"
    _check_window({"context.sliding_window": None, "context.attention_sinks": None}, spec)
