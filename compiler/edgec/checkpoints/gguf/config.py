"""From the metadata of a GGUF file to the ``config.json`` of the model it was made from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgec.checkpoints.gguf.architectures import find_architecture
from edgec.checkpoints.gguf.families import own_fields
from edgec.checkpoints.gguf.fields import Fields
from edgec.checkpoints.gguf.rope import rope_scaling
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from edgec.checkpoints.gguf.header import Entry

_LAYER_NORMS = ("phi2", "stablelm", "gptneox")
_MOST_LAYERS = 1 << 14
_ROTATED_IN_PART = ("phi2", "phi3", "stablelm", "gptneox")


def config_of(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Entry],
    read_vector: Callable[[str], NDArray[np.float32]],
    where: str,
) -> dict[str, Any]:
    """The fields of ``config.json`` that shape the model.

    Args:
        metadata: of the file.
        tensors: of the file.
        read_vector: gives the numbers of a tensor with one axis.
        where: the file's name for error messages.

    Raises:
        CheckpointError: a field is missing or impossible.
        UnsupportedModelError: an architecture, or a rotary embedding, that the metadata doesn't
            describe completely.
    """
    name, architecture = find_architecture(metadata, where)
    read = Fields(metadata, f"{name}.", where)
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError(
            "tensor token_embd.weight is missing", where=where, remedy="convert the model again"
        )
    heads = read.integer("attention.head_count")
    hidden = read.integer("embedding_length")
    layer_norms = name in _LAYER_NORMS
    config: dict[str, Any] = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": read.integer("feed_forward_length"),
        "num_hidden_layers": _layers(read),
        "num_attention_heads": heads,
        "num_key_value_heads": read.integer("attention.head_count_kv", heads),
        "head_dim": _head_dim(name, read, hidden // heads),
        "layer_norm_eps" if layer_norms else "rms_norm_eps": read.number(
            f"attention.layer_norm_{'' if layer_norms else 'rms_'}epsilon"
        ),
        "max_position_embeddings": read.integer("context_length"),
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_theta": read.number("rope.freq_base", 10000.0),
    }
    for field, key in (
        ("bos_token_id", "bos"),
        ("eos_token_id", "eos"),
        ("pad_token_id", "padding"),
    ):
        token = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if type(token) is int:
            config[field] = token
    if name in _ROTATED_IN_PART:
        rotary = read.integer("rope.dimension_count", config["head_dim"])
        config["partial_rotary_factor"] = _part(rotary, config["head_dim"])
    config |= own_fields(architecture.model_type, read, tensors, config)
    scaling = rope_scaling(metadata, read.prefix, tensors, read_vector, config, where)
    if scaling is not None:
        config["rope_scaling"] = scaling
        if "original_max_position_embeddings" in scaling:
            config |= _original_length(architecture.model_type, scaling)
    return config


def _layers(read: Fields) -> int:
    """The number of layers, of which lists are made."""
    layers = read.integer("block_count")
    if layers > _MOST_LAYERS:
        raise read.refuse("block_count", layers, f"a number up to {_MOST_LAYERS:,}")
    return layers


def _head_dim(name: str, read: Fields, width: int) -> int:
    if name not in _ROTATED_IN_PART:
        width = read.integer("rope.dimension_count", width)
    width = read.integer("attention.key_length", width)
    if not width:
        value = read.metadata.get(f"{read.prefix}attention.head_count")
        raise read.refuse("attention.head_count", value, "one that leaves a head any width")
    return width


def _part(rotary: int, width: int) -> float:
    """The part of a head that is rotated: what gives ``rotary`` when it is multiplied and cut off."""
    part = rotary / width
    return part if int(width * part) == rotary else math.nextafter(part, math.inf)


def _original_length(model_type: str, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Phi-3's configs say it outside of the rotary embedding's fields."""
    field = "original_max_position_embeddings"
    return {field: scaling[field]} if model_type == "phi3" else {}
