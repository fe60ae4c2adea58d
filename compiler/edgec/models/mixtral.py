"""Mixtral: Mistral with a mixture of experts in every layer, https://arxiv.org/abs/2401.04088."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import DecoderLayer
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader
from edgec.models.moe import MixtureOfExperts

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model.

    Attributes:
        num_local_experts: experts of each layer.
        num_experts_per_tok: how many of them a token goes through.
    """

    num_local_experts: int
    num_experts_per_tok: int

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", ("silu",), default="silu")
        experts = read.positive("num_local_experts", default=8)
        chosen = read.positive("num_experts_per_tok", default=2)
        read.require(
            chosen <= experts, "num_experts_per_tok", f"{chosen} of {experts} num_local_experts"
        )
        return cls(
            **dense_fields(config, default_eps=1e-5),
            num_local_experts=experts,
            num_experts_per_tok=chosen,
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(config, index, dtype)
        mlp = MixtureOfExperts(
            hidden,
            config.intermediate_size,
            config.num_local_experts,
            config.num_experts_per_tok,
            normalized=True,
            names=("w1", "w3", "w2"),
            dtype=dtype,
        )
        return DecoderLayer(attention, mlp, hidden, config.norm_eps, dtype=dtype)

    return dense_model(config, layer, dtype, names={"mlp": "block_sparse_moe"})
