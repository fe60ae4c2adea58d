"""Qwen2.5-VL: Qwen2.5 with images, https://arxiv.org/abs/2502.13923.

The text side is Qwen2's with multimodal rotary positions (``mrope.py``), images come from a vision
tower (``vision_tower.py``) whose tokens stand among those of the text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.blocks import Decoder, DecoderLayer, GatedMLP
from edgec.models.causal_lm import CausalLM
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader, language_config
from edgec.models.images import DEFAULT_SIZE
from edgec.models.mrope import MARKERS, MRope, image_markers, rotating_cache
from edgec.models.vision_tower import FRAMES, NAMES, VisionConfig, VisionTower

if TYPE_CHECKING:
    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

    from edgec.models.kv_cache import KVCacheSpec

IGNORED_TENSORS = ("*.rotary_emb.inv_freq", "*.rotary_pos_emb.inv_freq")
"""Tensors that old checkpoints carry and that follow from the config."""

_SECTIONS = (16, 24, 24)


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model.

    Attributes:
        sections: pairs of a head that turn by positions in time, height and width.
        vision: shape of the vision tower.
    """

    sections: tuple[int, int, int]
    vision: VisionConfig

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config, with or without a section for the text.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        config = language_config(config)
        read = ConfigReader(config)
        read.only("hidden_act", ("silu",), default="silu")
        read.only("use_sliding_window", (False,), default=False)
        plain, sections = _without_mrope(config)
        fields = dense_fields({"rope_theta": 1e6, **plain}, default_eps=1e-5)
        rope = fields["rope"]
        read.require(
            rope.rotary_dim == fields["head_dim"] and 2 * sum(sections) == fields["head_dim"],
            "rope_scaling.mrope_section",
            f"{list(sections)} are not the {fields['head_dim'] // 2} pairs of a head",
        )
        vision = config.get("vision_config")
        read.require(isinstance(vision, dict), "vision_config", "the section is missing")
        return cls(**fields, sections=sections, vision=_vision(vision, fields["hidden_size"]))


def _without_mrope(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """The config with a plain rotary embedding, and the sections of the multimodal one."""
    changed, sections = dict(config), list(_SECTIONS)
    for field in ("rope_scaling", "rope_parameters"):
        rope = config.get(field)
        if not isinstance(rope, dict):
            continue
        kept = {name: value for name, value in rope.items() if name != "mrope_section"}
        for name in ("type", "rope_type"):
            if kept.get(name) == "mrope":
                kept[name] = "default"
        changed[field] = kept
        sections = rope.get("mrope_section") or sections
    whole = isinstance(sections, list) and all(isinstance(item, int) for item in sections)
    ConfigReader(config).require(
        whole and len(sections) == len(_SECTIONS) and all(item > 0 for item in sections),
        "rope_scaling.mrope_section",
        f"{sections!r} are not three positive whole numbers",
    )
    time, height, width = sections
    return changed, (time, height, width)


def _vision(fields: Any, hidden_size: int) -> VisionConfig:
    read = ConfigReader(fields, "vision_config.")
    read.only("hidden_act", ("silu",), default="silu")
    read.only("in_chans", (3,), default=3)
    read.only("in_channels", (3,), default=3)
    read.only("temporal_patch_size", (FRAMES,), default=FRAMES)
    hidden, heads = read.positive("hidden_size"), read.positive("num_heads")
    read.require(
        hidden % (4 * heads) == 0,
        "num_heads",
        f"{heads} heads of {hidden} have no four equal parts",
    )
    out = read.positive("out_hidden_size", default=hidden_size)
    read.require(out == hidden_size, "out_hidden_size", f"{out} is not hidden_size {hidden_size}")
    patch, merge = read.positive("patch_size", 14), read.positive("spatial_merge_size", 2)
    window = read.positive("window_size", 112)
    read.require(
        window % (patch * merge) == 0, "window_size", f"{window} is no multiple of {patch * merge}"
    )
    full = fields.get("fullatt_block_indexes", (7, 15, 23, 31))
    read.require(
        isinstance(full, (list, tuple)) and all(isinstance(item, int) for item in full),
        "fullatt_block_indexes",
        f"{full!r} is no list of layers",
    )
    return VisionConfig(
        depth=read.positive("depth"),
        hidden_size=hidden,
        intermediate_size=read.positive("intermediate_size"),
        num_heads=heads,
        out_hidden_size=out,
        patch_size=patch,
        spatial_merge_size=merge,
        window_size=window,
        full_layers=frozenset(full),
    )


class MultimodalDecoder(Decoder):
    """A decoder of embeddings that say where in an image they stand."""

    spec: KVCacheSpec
    rope: MRope

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """``(batch, seq, hidden + MARKERS)`` to ``(batch, seq, hidden)``, before the head."""
        rotating = rotating_cache(cache, self.spec, self.rope, x)
        hidden, _ = op.split(x, [int(x.shape[2]) - MARKERS], axis=2)
        return super().forward(hidden, rotating)


class VisionLanguageModel(CausalLM):
    """A causal language model with ``image_embed``.

    Args:
        shape: the model's shape.
        args: see :class:`CausalLM`.
        options: see :class:`CausalLM`.

    Attributes:
        image_size: pixels of each side of the images that it takes; set it before exporting.
    """

    undecoded = ("visual.",)

    def __init__(self, *args: Any, shape: Config, **options: Any) -> None:
        super().__init__(*args, **options)
        self.visual = VisionTower(shape.vision, dtype=self.dtype)
        self.hidden_size += MARKERS
        self.cache_spec = replace(
            self.cache_spec, layers=self.cache_spec.layers + 1, rotates=False, helpers=1
        )
        self._sections = shape.sections
        self.image_size = DEFAULT_SIZE

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids ``(seq_len,)`` int32 to ``(seq_len, hidden + MARKERS)``."""
        text = super().embed(input_ids)
        return op.concat([text, op.zeros((text.shape[0], MARKERS), self.dtype)], dim=1)

    def image_embed(
        self, image: Tensor, resize_h: Any, resize_w: Any, crop_h: Any, crop_w: Any
    ) -> Tensor:
        """Pixels ``(1, size, size, 3)`` uint8 to ``(tokens, hidden + MARKERS)``.

        Engines have four sizes for models that cut images into pieces; here they mean nothing.
        """
        del resize_h, resize_w, crop_h, crop_w
        markers = Tensor.from_const(image_markers(self._side(), self.dtype))
        return op.concat([self.visual(image), markers], dim=1)

    def export_spec(self) -> dict[str, Any]:
        """Types of the functions for ``export_tvm``."""
        self.model.spec = self.cache_spec
        self.model.rope = MRope(
            self._sections, tuple(self.cache_spec.rope.inverse_frequencies()), self._side()
        )
        size = self.image_size
        return {
            **super().export_spec(),
            "image_embed": {
                "image": nn.spec.Tensor([1, size, size, 3], "uint8"),
                "resize_h": nn.spec.Int(),
                "resize_w": nn.spec.Int(),
                "crop_h": nn.spec.Int(),
                "crop_w": nn.spec.Int(),
                "$": {"param_mode": "packed", "effect_mode": "none"},
            },
        }

    def _side(self) -> int:
        return self.visual.grid(self.image_size).side


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(config, index, dtype, qkv_bias=True)
        mlp = GatedMLP(hidden, config.intermediate_size, bias=False, dtype=dtype)
        return DecoderLayer(attention, mlp, hidden, config.norm_eps, dtype=dtype)

    return dense_model(
        config,
        layer,
        dtype,
        stack=MultimodalDecoder,
        names=NAMES,
        kind=VisionLanguageModel,
        shape=config,
    )
