"""Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side, LayerNorm, biases everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import ACTIVATIONS, MLP, LayerNorm, ParallelLayer
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""

_NAMES = {"up_proj": "fc1", "down_proj": "fc2", "o_proj": "dense", "norm": "final_layernorm"}


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model."""

    hidden_act: str

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", tuple(ACTIVATIONS), default="gelu_new")
        read.only("qk_layernorm", (False,), default=False)
        # A tied head would have a bias of its own beside the embedding.
        read.only("tie_word_embeddings", (False,), default=False)
        fields = dense_fields(config, eps="layer_norm_eps", default_eps=1e-5, default_rotary=0.5)
        return cls(**fields, hidden_act=config.get("hidden_act") or "gelu_new")


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> ParallelLayer:
        attention = dense_attention(config, index, dtype, qkv_bias=True, out_bias=True)
        mlp = MLP(hidden, config.intermediate_size, config.hidden_act, bias=True, dtype=dtype)
        return ParallelLayer(
            attention, mlp, hidden, config.norm_eps, norm=LayerNorm, shared=True, dtype=dtype
        )

    return dense_model(config, layer, dtype, norm=LayerNorm, head_bias=True, names=_NAMES)
