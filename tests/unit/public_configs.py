"""What matters of the ``config.json`` of public models, of many architectures."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def decoder(
    model_type: str, sizes: tuple[int, int, int, int, int, int, int], **fields: Any
) -> Config:
    """A config of the usual fields.

    Args:
        model_type: of the model.
        sizes: hidden size, MLP size, layers, heads, key-value heads, vocabulary, positions.
        fields: all others.
    """
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "max_position_embeddings",
    )
    plain = {"hidden_act": "silu", "rms_norm_eps": 1e-05, "tie_word_embeddings": False}
    return {"model_type": model_type, **dict(zip(names, sizes, strict=True)), **plain, **fields}


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LLAMA_8B = (4096, 14336, 32, 32, 8, 128256, 131072)

# By the name of the model, with its parameters.
SUPPORTED: dict[str, tuple[Config, int]] = {
    "Llama-3.1-8B": (
        decoder("llama", _LLAMA_8B, rope_theta=500000.0, rope_scaling=LLAMA3),
        8_030_261_248,
    ),
    "DeepSeek-R1-Distill-Llama-8B": (
        decoder("llama", _LLAMA_8B, rope_theta=500000.0, rope_scaling=LLAMA3, attention_bias=False),
        8_030_261_248,
    ),
    "TinyLlama-1.1B": (
        decoder("llama", (2048, 5632, 22, 32, 4, 32000, 2048), rope_theta=10000.0),
        1_100_048_384,
    ),
    "Falcon3-1B": (
        decoder("llama", (2048, 8192, 18, 8, 4, 131072, 8192), head_dim=256, rope_theta=1000042),
        1_669_408_768,
    ),
    "Yarn-Llama-2-7b": (
        decoder(
            "llama",
            (4096, 11008, 32, 32, 32, 32000, 131072),
            rope_scaling={
                "type": "yarn",
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "finetuned": True,
            },
        ),
        6_738_415_616,
    ),
}
OTHERS: dict[str, Config] = {
    "Llama-4-Scout": {
        "model_type": "llama4",
        "text_config": decoder(
            "llama4_text",
            (5120, 8192, 48, 40, 8, 202048, 10485760),
            attention_chunk_size=8192,
            head_dim=128,
            num_local_experts=16,
            num_experts_per_tok=1,
            no_rope_layers=[1, 1, 1, 0] * 12,
            rope_scaling={**LLAMA3, "factor": 16.0},
        ),
        "vision_config": {"model_type": "llama4_vision_model", "hidden_size": 1408},
    },
    "DeepSeek-V3": decoder(
        "deepseek_v3",
        (7168, 18432, 61, 128, 128, 129280, 163840),
        kv_lora_rank=512,
        q_lora_rank=1536,
        n_routed_experts=256,
        n_shared_experts=1,
        rope_scaling={"type": "yarn", "factor": 40},
    ),
    "Mamba-130m": {
        "model_type": "mamba",
        "hidden_size": 768,
        "num_hidden_layers": 24,
        "state_size": 16,
        "conv_kernel": 4,
        "layer_norm_epsilon": 1e-05,
        "vocab_size": 50280,
    },
    "T5-small": {
        "model_type": "t5",
        "d_model": 512,
        "d_ff": 2048,
        "d_kv": 64,
        "num_layers": 6,
        "num_heads": 8,
        "n_positions": 512,
        "feed_forward_proj": "relu",
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "relative_attention_num_buckets": 32,
        "vocab_size": 32128,
    },
    "RWKV-4-169m": {
        "model_type": "rwkv",
        "attention_hidden_size": 768,
        "context_length": 1024,
        "hidden_size": 768,
        "layer_norm_epsilon": 1e-05,
        "num_hidden_layers": 12,
        "rescale_every": 6,
        "vocab_size": 50277,
    },
    "Qwen2.5-VL-7B": decoder(
        "qwen2_5_vl",
        (3584, 18944, 28, 28, 4, 152064, 128000),
        rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
        rope_theta=1000000.0,
        sliding_window=32768,
        use_sliding_window=False,
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
    ),
    "GPT-2": {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    },
    "Falcon-7B": {
        "model_type": "falcon",
        "alibi": False,
        "hidden_size": 4544,
        "layer_norm_epsilon": 1e-05,
        "multi_query": True,
        "num_attention_heads": 71,
        "num_hidden_layers": 32,
        "parallel_attn": True,
        "vocab_size": 65024,
    },
    "Bloom-560m": {
        "model_type": "bloom",
        "alibi": True,
        "hidden_size": 1024,
        "layer_norm_epsilon": 1e-05,
        "n_head": 16,
        "n_layer": 24,
        "vocab_size": 250880,
    },
    "OLMo-2-7B": decoder("olmo2", (4096, 11008, 32, 32, 32, 100352, 4096), rope_theta=500000),
    "Granite-3.1-2B": decoder(
        "granite",
        (2048, 8192, 40, 32, 8, 49155, 131072),
        attention_multiplier=0.015625,
        embedding_multiplier=12.0,
        logits_scaling=8.0,
        residual_multiplier=0.22,
        rope_theta=5000000.0,
    ),
    "Command-R": decoder(
        "cohere",
        (8192, 22528, 40, 64, 64, 256000, 131072),
        layer_norm_eps=1e-05,
        logit_scale=0.0625,
        use_qk_norm=False,
    ),
    "gpt-oss-20b": decoder(
        "gpt_oss",
        (2880, 2880, 24, 64, 8, 201088, 131072),
        attention_bias=True,
        head_dim=64,
        layer_types=["sliding_attention", "full_attention"] * 12,
        num_local_experts=32,
        quantization_config={"quant_method": "mxfp4"},
        rope_scaling={"rope_type": "yarn", "factor": 32.0},
        sliding_window=128,
    ),
    "Mixtral-8x7B": decoder(
        "mixtral",
        (4096, 14336, 32, 32, 8, 32000, 32768),
        num_local_experts=8,
        num_experts_per_tok=2,
        rope_theta=1000000.0,
        sliding_window=None,
    ),
    "BERT-base": {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "type_vocab_size": 2,
        "vocab_size": 30522,
    },
    "LFM2-1.2B": decoder(
        "lfm2",
        (2048, 12288, 16, 32, 8, 65536, 128000),
        conv_L_cache=3,
        full_attn_idxs=[2, 5, 8, 10, 12, 14],
        rope_theta=1000000.0,
    ),
    "Nemotron-mini-4B": decoder(
        "nemotron",
        (3072, 9216, 32, 24, 8, 256000, 4096),
        hidden_act="relu2",
        norm_eps=1e-05,
        partial_rotary_factor=0.5,
    ),
}
"""That the family ``llama`` doesn't build."""
