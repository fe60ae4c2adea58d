"""Encoders that transformers knows: BERT and its kin, ViT, ResNet, Whisper's encoder and more.

What a model takes is read off the name of its main input: token ids with a mask, pixels, or
features of sound. What it returns is its last hidden state, or the logits if the checkpoint is one of a
classifier. Code from a checkpoint's repository is never run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
import transformers

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.importers.declared import declared_signature
from edgec.importers.imported import Signature, TensorType
from edgec.importers.torch_model import TorchModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_BATCH = 8
"""The largest batch, unless a recipe says another."""


def open_encoder(
    folder: Path,
    *,
    declared: Sequence[TensorType] = (),
    bounds: Mapping[str, int] | None = None,
    seed: int | None = None,
) -> TorchModel:
    """The encoder of a model folder, in float32.

    Args:
        folder: has ``config.json`` and, without a seed, weights as safetensors.
        declared: inputs that the recipe gives shapes for.
        bounds: largest sizes that the recipe gives.
        seed: for random weights; the folder then needs none.

    Raises:
        CheckpointError: the folder lacks something or can't be read.
        UnsupportedModelError: transformers doesn't know the model, or it is no encoder.
        UsageError: what is declared doesn't fit the model.
    """
    config = _config(folder)
    model_class, outputs = _model_class(config, str(folder))
    if seed is None:
        model = _pretrained(model_class, config, folder)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = _constructed(model_class, config, str(folder))
    encoder = model.get_encoder() if getattr(config, "is_encoder_decoder", False) else model
    encoder = encoder.eval().float()
    signature = declared_signature(_signature(encoder, config, str(folder)), declared, bounds or {})
    module = _Named(encoder, [item.name for item in signature.inputs], outputs)
    return TorchModel(module.eval(), signature, outputs=outputs, where=str(folder))


def _config(folder: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"transformers can't read the config: {_first_line(error)}",
            where=str(folder / "config.json"),
            remedy="give the folder of a model that transformers has code for",
        ) from error
    # Attention as plain products: what torch makes of its fused operator guards against rows
    # without any token, for which there is no use here.
    config._attn_implementation = "eager"  # noqa: SLF001 - the name that transformers documents
    return config


def _model_class(config: Any, where: str) -> tuple[Any, tuple[str, ...]]:
    """The class to load, and which of its outputs to take."""
    names = getattr(config, "architectures", None) or [""]
    if names[0].endswith(("ForCausalLM", "LMHeadModel")):
        raise UnsupportedModelError(
            f"{names[0]} is a decoder, which needs a KV cache",
            where=where,
            remedy="leave `kind: generic` out of its recipe",
        )
    if names[0].endswith("Classification") and hasattr(transformers, names[0]):
        return getattr(transformers, names[0]), ("logits",)
    return transformers.AutoModel, ("last_hidden_state",)


def _pretrained(model_class: Any, config: Any, folder: Path) -> Any:
    try:
        return model_class.from_pretrained(
            str(folder),
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"transformers can't load the weights: {_first_line(error)}",
            where=str(folder),
            remedy="give a folder with its weights as safetensors",
        ) from error


def _constructed(model_class: Any, config: Any, where: str) -> Any:
    try:
        if model_class is transformers.AutoModel:
            return model_class.from_config(config, trust_remote_code=False)
        return model_class(config)
    except (ValueError, TypeError, ImportError) as error:
        raise UnsupportedModelError(
            f"transformers can't build the model: {_first_line(error)}",
            where=where,
            remedy="give a model that transformers has code for",
        ) from error


def _signature(encoder: Any, config: Any, where: str) -> Signature:
    name = str(encoder.main_input_name)
    if name == "input_ids":
        length = int(getattr(config, "max_position_embeddings", 0) or 512)
        # Models that count positions from after the padding token have that many fewer.
        if config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}:
            length -= int(config.pad_token_id) + 1
        sizes = ("batch", "length")
        return Signature(
            tuple(TensorType(key, sizes, "int32") for key in (name, "attention_mask")),
            {"batch": _BATCH, "length": length},
        )
    if name == "pixel_values":
        size = _image_size(config)
        channels = int(getattr(config, "num_channels", 3))
        shape: tuple[int | str, ...] = ("batch", channels, *size)
    elif name == "input_features" and hasattr(config, "num_mel_bins"):
        # Two frames become one position: the second convolution has stride 2.
        shape = ("batch", int(config.num_mel_bins), 2 * int(config.max_source_positions))
    else:
        raise UnsupportedModelError(
            f"its main input is {name}, of which the shape isn't known",
            where=where,
            remedy="give a Python file with a function that returns the module and example inputs,"
            " as torch:FILE.py:FUNCTION",
        )
    return Signature((TensorType(name, shape, "float32"),), {"batch": _BATCH})


def _image_size(config: Any) -> tuple[int | str, int | str]:
    """Height and width; 224 for models whose config says none, which take any size."""
    size = getattr(config, "image_size", None) or 224
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[1])
    return int(size), int(size)


class _Named(torch.nn.Module):
    """The encoder as a function of positions: inputs in order to a tuple of outputs."""

    def __init__(self, encoder: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.encoder(**dict(zip(self._inputs, inputs, strict=True)), return_dict=True)
        return tuple(result[name] for name in self._outputs)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
