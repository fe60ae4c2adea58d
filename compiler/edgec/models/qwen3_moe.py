"""Qwen3 with a mixture of experts in most layers: Qwen3-30B-A3B and its like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import DecoderLayer, GatedMLP
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader
from edgec.models.moe import MixtureOfExperts

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ()


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model.

    Attributes:
        attention_bias: whether attention's projections have biases.
        moe_intermediate_size: outputs of each of an expert's gate and up.
        num_experts: of each layer that has some.
        num_experts_per_tok: how many of them a token goes through.
        norm_topk_prob: whether the weights of the chosen ones are made to add up to one.
        sparse: for each layer, whether it has experts; otherwise it has an MLP.
    """

    attention_bias: bool
    moe_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    norm_topk_prob: bool
    sparse: tuple[bool, ...]

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", ("silu",), default="silu")
        fields = dense_fields(config)
        # Newer releases of transformers write the second name.
        experts = read.positive(
            "num_experts", default=read.positive("num_local_experts", default=128)
        )
        chosen = read.positive("num_experts_per_tok", default=8)
        read.require(chosen <= experts, "num_experts_per_tok", f"{chosen} of {experts} num_experts")
        dense = config.get("mlp_only_layers") or []
        read.require(
            isinstance(dense, list) and all(isinstance(number, int) for number in dense),
            "mlp_only_layers",
            f"{dense!r} is not a list of layers",
        )
        step = read.positive("decoder_sparse_step", default=1)
        return cls(
            **fields,
            attention_bias=read.flag("attention_bias"),
            moe_intermediate_size=read.positive("moe_intermediate_size", default=768),
            num_experts=experts,
            num_experts_per_tok=chosen,
            norm_topk_prob=read.flag("norm_topk_prob"),
            sparse=tuple(
                index not in dense and (index + 1) % step == 0
                for index in range(fields["num_hidden_layers"])
            ),
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def mlp(index: int) -> GatedMLP | MixtureOfExperts:
        if not config.sparse[index]:
            return GatedMLP(hidden, config.intermediate_size, bias=False, dtype=dtype)
        return MixtureOfExperts(
            hidden,
            config.moe_intermediate_size,
            config.num_experts,
            config.num_experts_per_tok,
            normalized=config.norm_topk_prob,
            dtype=dtype,
        )

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(
            config,
            index,
            dtype,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            head_norm_eps=config.norm_eps,
        )
        return DecoderLayer(attention, mlp(index), hidden, config.norm_eps, dtype=dtype)

    return dense_model(config, layer, dtype)
