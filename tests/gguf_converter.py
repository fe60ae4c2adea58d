"""Model folders as GGUF files: what llama.cpp's converter does to each architecture, with F32 weights.

Names come from the tables of the gguf package.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from pathlib import Path

    Array = np.ndarray[Any, np.dtype[Any]]

PERMUTED = ("llama", "mistral", "mixtral", "minicpm")
ARCHITECTURES = {
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "mixtral": "LLAMA",
    "minicpm": "MINICPM",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "qwen3_moe": "QWEN3MOE",
    "phi": "PHI2",
    "phi3": "PHI3",
    "gemma": "GEMMA",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
    "stablelm": "STABLELM",
    "gpt_neox": "GPTNEOX",
}
_FIELDS = {
    "rms_norm_eps": "layer_norm_rms_eps",
    "layer_norm_eps": "layer_norm_eps",
    "sliding_window": "sliding_window",
    "use_parallel_residual": "parallel_residual",
    "num_local_experts": "expert_count",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(\w+)\.weight")


def convert(folder: Path, path: Path) -> dict[str, Array]:
    """Write the file.

    Returns:
        The tensors of the folder by their names there.
    """
    import gguf  # noqa: PLC0415 - only tests of GGUF need it

    config = json.loads((folder / "config.json").read_text())
    arch = gguf.MODEL_ARCH[ARCHITECTURES[config["model_type"]]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _metadata(writer, config, gguf)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    tensors: dict[str, Array] = load_file(folder / "model.safetensors")
    for name, values in _stacked(tensors).items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        writer.add_tensor(stored, np.ascontiguousarray(_changed(name, values, config)))
    for name, factors in _rope_factors(config).items():
        writer.add_tensor(name, np.array(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def _stacked(tensors: dict[str, Array]) -> dict[str, Array]:
    """The experts of a layer as one tensor."""
    found: dict[str, Any] = {}
    for name, values in tensors.items():
        match = _EXPERT.fullmatch(name)
        if match is None:
            found[name] = values
            continue
        block, _, module = match.groups()
        count = sum(other.endswith(f".{module}.weight") for other in tensors if block in other)
        each = [tensors[f"{block}.{expert}.{module}.weight"] for expert in range(count)]
        found[f"{block}.{module}.weight"] = np.stack(each)
    return found


def _changed(name: str, values: Array, config: dict[str, Any]) -> Array:
    kind, heads = config["model_type"], config["num_attention_heads"]
    for part, count in (("q_proj", heads), ("k_proj", config.get("num_key_value_heads", heads))):
        if kind in PERMUTED and f".{part}." in name:
            shape = count, 2, values.shape[0] // count // 2, *values.shape[1:]
            return values.reshape(shape).swapaxes(1, 2).reshape(values.shape)
    if kind == "gpt_neox" and ".query_key_value." in name:
        shape = heads, 3, values.shape[0] // heads // 3, *values.shape[1:]
        return values.reshape(shape).swapaxes(0, 1).reshape(values.shape)
    return values + 1 if kind.startswith("gemma") and name.endswith("norm.weight") else values


def rope_of(config: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the rotary embedding, in either spelling."""
    rope = dict(config.get("rope_parameters") or {})
    rope = dict(rope.get("full_attention", rope))
    scaling = config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), **rope, **scaling}


def _metadata(writer: Any, config: dict[str, Any], gguf: Any) -> None:
    kind, rope = config["model_type"], rope_of(config)
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    width = config.get("head_dim") or hidden // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    part = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if kind in ("phi", "phi3", "stablelm", "gpt_neox", "llama", "mistral", "mixtral", "minicpm"):
        writer.add_rope_dimension_count(int(width * part))
    if kind not in ("stablelm", "gpt_neox"):
        writer.add_rope_freq_base(float(rope["rope_theta"]))
    if kind in ("qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "llama"):
        writer.add_key_length(width)
        writer.add_value_length(width)
    for key, name in _FIELDS.items():
        if config.get(key) is not None:
            getattr(writer, f"add_{name}")(config[key])
    if kind == "minicpm":
        writer.add_embedding_scale(float(config["scale_emb"]))
        writer.add_residual_scale(config["scale_depth"] / config["num_hidden_layers"] ** 0.5)
        writer.add_logit_scale(hidden / config["dim_model_base"])
    _rope_metadata(writer, config, gguf)


def _rope_metadata(writer: Any, config: dict[str, Any], gguf: Any) -> None:
    rope = rope_of(config)
    kind = rope.get("rope_type")
    if kind == "longrope":
        writer.add_rope_scaling_orig_ctx_len(_original(config, rope))
        writer.add_rope_scaling_attn_factors(_attention_factor(config, rope))
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _original(config: dict[str, Any], rope: dict[str, Any]) -> int:
    field = "original_max_position_embeddings"
    return int(config.get(field) or rope[field])


def _attention_factor(config: dict[str, Any], rope: dict[str, Any]) -> float:
    original = _original(config, rope)
    stretch = config["max_position_embeddings"] / original
    return math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0


def _rope_factors(config: dict[str, Any]) -> dict[str, list[float]]:
    rope = rope_of(config)
    if rope.get("rope_type") == "longrope":
        return {f"rope_factors_{name}.weight": rope[f"{name}_factor"] for name in ("long", "short")}
    if rope.get("rope_type") != "llama3":
        return {}
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    factors = []
    for index in range(0, width, 2):
        exponent = np.float32(index) / np.float32(width)
        wavelength = 2 * math.pi * float(np.float32(rope["rope_theta"]) ** exponent)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return {"rope_freqs.weight": factors}
