"""What sets architectures apart, as far as a ``config.json`` tells it.

Enough to say of a model that no family builds what it has that the nearest family hasn't. What a
config doesn't mention, because every model of its type has it, stands in ``_IMPLIED``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.rope_config import SUPPORTED_TYPES, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_GATES = ("silu", "swish")


@dataclass(frozen=True)
class Feature:
    """Something that not all models have.

    Attributes:
        name: what families are described by, see :data:`FAMILY_FEATURES`.
        field: of the config that shows it; ``model_type`` if it is implied.
        value: of that field.
    """

    name: str
    field: str
    value: Any


def config_features(config: Mapping[str, Any]) -> list[Feature]:
    """The features of a config's model, each once, with the field that shows it.

    Args:
        config: content of any ``config.json``; of a model with a language model inside
            (``text_config``) both are looked at.
    """
    found: dict[str, Feature] = {}
    for feature in _features({**config, **_inner(config)}):
        found.setdefault(feature.name, feature)
    return list(found.values())


def _inner(config: Mapping[str, Any]) -> dict[str, Any]:
    inner = config.get("text_config")
    return dict(inner) if isinstance(inner, dict) else {}


def _features(config: Mapping[str, Any]) -> Iterator[Feature]:
    for name, fields, shows in _TESTS:
        for field in fields:
            if shows(config.get(field)):
                yield Feature(name, field, config[field])
    yield from _rope(config)
    window: Any = config.get("sliding_window")
    length = config.get("max_position_embeddings")
    used = config.get("use_sliding_window", True)
    never_full = _many(window) and isinstance(length, int) and window >= length
    if _many(window) and used and not never_full:
        yield Feature("a sliding window", "sliding_window", window)
    kind = config.get("model_type")
    for name in _IMPLIED.get(kind, ()) if isinstance(kind, str) else ():
        yield Feature(name, "model_type", kind)


def _rope(config: Mapping[str, Any]) -> Iterator[Feature]:
    for field in ("rope_scaling", "rope_parameters"):
        scaling = config.get(field)
        if isinstance(scaling, dict):
            key = "rope_type" if "rope_type" in scaling else "type"
            kind = scaling.get(key, "default")
            if kind_of(scaling) not in SUPPORTED_TYPES:
                yield Feature("another RoPE scaling", f"{field}.{key}", kind)


def _some(value: Any) -> bool:
    return value is not None and value is not False and value not in (0, "", [], {})


def _many(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1


def _scaled(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value != 1


def _part(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1


def _true(value: Any) -> bool:
    return value is True


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _several(value: Any) -> bool:
    return isinstance(value, list) and len({str(item) for item in value}) > 1


def _other_activation(value: Any) -> bool:
    return isinstance(value, str) and value not in _GATES


# A name, the fields that can show it, and which of their values do.
_TESTS: tuple[tuple[str, tuple[str, ...], Callable[[Any], bool]], ...] = (
    ("an encoder", ("is_encoder_decoder",), _true),
    (
        "state-space layers",
        ("ssm_cfg", "state_size", "mamba_d_state", "ssm_state_size", "mamba_expand"),
        _some,
    ),
    ("recurrent layers", ("rescale_every", "lru_width", "block_types"), _some),
    ("convolutions between tokens", ("conv_L_cache", "full_attn_idxs"), _some),
    ("latent attention", ("kv_lora_rank",), _many),
    ("attention in chunks", ("attention_chunk_size",), _many),
    (
        "experts",
        ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
        _many,
    ),
    (
        "shared experts",
        ("n_shared_experts", "num_shared_experts", "shared_expert_intermediate_size"),
        _some,
    ),
    ("images", ("vision_config",), _object),
    ("sound", ("audio_config", "num_mel_bins"), _some),
    ("positions that are learned", ("n_positions", "type_vocab_size"), _many),
    ("positions as biases", ("relative_attention_num_buckets",), _many),
    ("positions as biases", ("alibi",), _true),
    ("attention and MLP side by side", ("parallel_attn", "use_parallel_residual"), _true),
    ("layers of several kinds", ("layer_types", "layers_block_type"), _several),
    ("layers of several kinds", ("sliding_window_pattern", "hybrid_layer_pattern"), _some),
    ("layers without positions", ("no_rope_layers", "no_rope_layer_interval"), _some),
    ("LayerNorm", ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"), _some),
    ("soft caps", ("attn_logit_softcapping", "final_logit_softcapping"), _some),
    ("norms of queries and keys", ("use_qk_norm", "qk_layernorm"), _true),
    (
        "scales",
        (
            "embedding_multiplier",
            "residual_multiplier",
            "logits_scaling",
            "logit_scale",
            "scale_emb",
            "scale_depth",
        ),
        _scaled,
    ),
    ("a partial rotary embedding", ("partial_rotary_factor", "rotary_pct"), _part),
    (
        "another activation",
        ("hidden_act", "hidden_activation", "activation_function", "feed_forward_proj"),
        _other_activation,
    ),
)
_PLAIN_MLP = "an MLP without gate"
_IMPLIED: dict[str, tuple[str, ...]] = {
    "bert": ("an encoder", _PLAIN_MLP),
    "bloom": ("a norm behind the embedding", _PLAIN_MLP),
    "cohere": ("LayerNorm", "attention and MLP side by side"),
    "falcon": (_PLAIN_MLP, "another activation"),
    "gemma2": ("norms behind blocks",),
    "gemma3": ("norms of queries and keys", "norms behind blocks"),
    "gemma3_text": ("norms of queries and keys", "norms behind blocks"),
    "gpt2": (_PLAIN_MLP,),
    "gpt_neox": (_PLAIN_MLP,),
    "gpt_oss": ("sinks in attention",),
    "nemotron": (_PLAIN_MLP, "LayerNorm", "norms with an offset"),
    "olmo2": ("norms of queries and keys", "norms behind blocks"),
    "phi": (_PLAIN_MLP, "attention and MLP side by side"),
    "qwen2": ("biases of queries, keys and values",),
    "qwen2_5_vl": ("biases of queries, keys and values",),
    "qwen3": ("norms of queries and keys",),
    "qwen3_moe": ("norms of queries and keys",),
    "rwkv": ("recurrent layers",),
}

_LAYER_NORM = {"LayerNorm", "a partial rotary embedding"}
_HEAD_NORMS = "norms of queries and keys"
FAMILY_FEATURES: dict[str, frozenset[str]] = {
    name: frozenset(features)
    for name, features in {
        "llama": set[str](),
        "mistral": {"a sliding window"},
        "mixtral": {"a sliding window", "experts"},
        "phi3": {"a sliding window", "a partial rotary embedding"},
        "phi": _LAYER_NORM
        | {_HEAD_NORMS, "another activation", "attention and MLP side by side", _PLAIN_MLP},
        "qwen2": {"a sliding window", "biases of queries, keys and values"},
        "qwen2_5_vl": {
            "a sliding window",
            "another RoPE scaling",
            "biases of queries, keys and values",
            "images",
        },
        "qwen3": {"a sliding window", "norms of queries and keys"},
        "qwen3_moe": {"a sliding window", "norms of queries and keys", "experts"},
        "gemma": {"another activation"},
        "gemma2": {
            "a sliding window",
            "another activation",
            "layers of several kinds",
            "norms behind blocks",
            "soft caps",
        },
        "gemma3_text": {
            "a sliding window",
            "another activation",
            "layers of several kinds",
            "norms behind blocks",
            "norms of queries and keys",
        },
        "minicpm": {"scales"},
        "stablelm": _LAYER_NORM
        | {_HEAD_NORMS, "attention and MLP side by side", "biases of queries, keys and values"},
        "gpt_neox": _LAYER_NORM
        | {"another activation", "attention and MLP side by side", _PLAIN_MLP},
    }.items()
}
"""What a family's code can do beyond a plain decoder of the kind of Llama."""
