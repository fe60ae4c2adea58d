"""Write a model folder's float16 weights as a GGUF file; runs with gguf and NumPy alone.

    python write_gguf.py FOLDER FILE.gguf {F16,Q4_0}

The type is that of all matrices; vectors are float32. One tensor is in memory at a time. Knows the
tensors of Llama and Phi-3. The file has no vocabulary: measurements use token ids.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

_PLAIN = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def main() -> None:
    folder, file = map(Path, sys.argv[1:3])
    kind = gguf.GGMLQuantizationType[sys.argv[3]]
    config = json.loads((folder / "config.json").read_bytes())
    writer = gguf.GGUFWriter(str(file), config["model_type"])
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    rotated = int(width * config.get("partial_rotary_factor", 1))
    rope = config.get("rope_parameters") or {**(config.get("rope_scaling") or {})}
    writer.add_name("random weights")
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(rotated)
    writer.add_rope_freq_base(rope.get("rope_theta") or config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    if (rope.get("rope_type") or rope.get("type")) == "longrope":
        original = config["original_max_position_embeddings"]
        longer = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(longer) / math.log(original)))
    found = [*rope_factors(rope, rotated), *matrices(config, folder / "model.safetensors")]
    for name, values, _ in found:
        held = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        shape = gguf.quants.quant_shape_to_byte_shape(values.shape, held)
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), math.prod(shape), held)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, values, turned in found:
        held = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        rows = paired(values, turned) if turned else values
        writer.write_tensor_data(gguf.quants.quantize(rows, held))
    writer.close()


def rope_factors(rope: dict[str, Any], rotated: int) -> list[tuple[str, npt.NDArray[Any], int]]:
    """By what the frequencies of RoPE are divided, as tensors."""
    kind = rope.get("rope_type") or rope.get("type")
    if kind in (None, "default"):
        return []
    if kind == "llama3":
        return [("rope_freqs.weight", llama3_factors(rope, rotated), 0)]
    if kind != "longrope":
        sys.exit(f"this writer knows no RoPE of the kind {kind}")
    return [
        (f"rope_factors_{length}.weight", np.array(rope[f"{length}_factor"], np.float32), 0)
        for length in ("long", "short")
    ]


def matrices(config: dict[str, Any], file: Path) -> list[tuple[str, npt.NDArray[Any], int]]:
    """All tensors by their names in GGUF, and into how many heads rows are turned, if they are."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    found = []
    for name, values in tensors(file):
        part = name.removesuffix(".weight").rpartition(".")[2]
        turned = heads.get(part, 0) if config["model_type"] == "llama" else 0
        found.append((gguf_name(name), values, turned))
    return found


def tensors(file: Path) -> list[tuple[str, npt.NDArray[Any]]]:
    """The float16 tensors of a safetensors file, mapped."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    data = np.memmap(file, np.uint8, "r", 8 + length)
    header.pop("__metadata__", None)
    found = []
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        found.append((name, data[start:stop].view("<f2").reshape(entry["shape"])))
    return found


def gguf_name(name: str) -> str:
    if name in _PLAIN:
        return _PLAIN[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_IN_LAYER[rest.removesuffix('.weight')]}.weight"


def paired(values: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows of queries or keys for a RoPE that turns neighbours and not halves."""
    rows, columns = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


def llama3_factors(rope: dict[str, Any], rotated: int) -> npt.NDArray[np.float32]:
    """By what Llama 3 divides the frequency of each pair."""
    frequencies = rope["rope_theta"] ** -(np.arange(0, rotated, 2) / rotated)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / (kept + (1 - kept) / rope["factor"])).astype(np.float32)


if __name__ == "__main__":
    main()
