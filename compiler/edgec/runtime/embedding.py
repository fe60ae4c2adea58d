"""Texts to vectors with the artifact of an embedding model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers

from edgec.artifacts.tokenizer_files import TOKENIZER
from edgec.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgec.artifacts.interface import Embedding
    from edgec.runtime.tensor_model import TensorModel

    Vectors = npt.NDArray[np.float32]

_LEAST = 1e-12


def embed(model: TensorModel, texts: Sequence[str]) -> Vectors:
    """The vector of each text, ``(len(texts), hidden)``.

    A text longer than the model takes is cut. Texts are padded to the longest of their batch.

    Raises:
        UsageError: the artifact is no embedding model.
        CheckpointError: it has no tokenizer.
    """
    embedding = model.interface.embedding
    if embedding is None:
        raise UsageError(
            "the artifact is a function of tensors, not of texts",
            where=str(model.artifact.folder),
            remedy="give its inputs with --input NAME=FILE.npy",
        )
    tokenizer = _tokenizer(model)
    ids, mask = (item.name for item in model.interface.inputs)
    vectors = []
    for start in range(0, len(texts), model.interface.batch):
        found = tokenizer.encode_batch(list(texts[start : start + model.interface.batch]))
        tokens = np.array([item.ids for item in found], np.int32)
        attended = np.array([item.attention_mask for item in found], np.int32)
        (states,) = model.run({ids: tokens, mask: attended}).values()
        vectors.append(pool(states, attended, embedding))
    return np.concatenate(vectors)


def pool(states: npt.NDArray[Any], mask: npt.NDArray[Any], embedding: Embedding) -> Vectors:
    """Token vectors ``(batch, length, hidden)`` to those of texts ``(batch, hidden)``.

    Args:
        states: what the model returns.
        mask: 1 for tokens of the text, 0 for padding, ``(batch, length)``.
        embedding: how.
    """
    if embedding.pooling == "cls":
        vectors = states[:, 0].astype(np.float32)
    else:
        weights = mask[:, :, None].astype(np.float32)
        vectors = (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    if embedding.normalize:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(lengths, _LEAST)
    return vectors.astype(np.float32)


def _tokenizer(model: TensorModel) -> Any:
    """The artifact's tokenizer with the special tokens that the model was trained with."""
    path = model.artifact.model / TOKENIZER
    if not path.is_file():
        raise CheckpointError(
            "the artifact has no tokenizer, so it takes no text",
            where=str(path),
            remedy="build it from a model with tokenizer.json, or give token ids with --input",
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises a plain Exception
        raise CheckpointError(
            f"the tokenizer can't be read: {error}", where=str(path), remedy="build it again"
        ) from error
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(
        pad_id=int(padding.get("pad_id", 0)), pad_token=str(padding.get("pad_token", "[PAD]"))
    )
    tokenizer.enable_truncation(model.interface.length)
    return tokenizer
