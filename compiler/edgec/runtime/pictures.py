"""Image files as part of a message."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgec.errors import ToolchainError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgec.runtime.embedded_images import EmbeddedImage, Token

Pixels = npt.NDArray[np.uint8]


class ImageEngine(Protocol):
    """What images need of :class:`edgec.runtime.engine.Engine`."""

    metadata: dict[str, Any]

    def embed_image(self, pixels: Pixels) -> EmbeddedImage:
        """The embeddings of an image ``(size, size, 3)``."""


class Names(Protocol):
    """What images need of :class:`edgec.runtime.tokenizer.Tokenizer`."""

    def name(self, token: int) -> str | None:
        """What a token is called, such as ``<|image_pad|>``; None if there is none."""


@dataclass(frozen=True)
class Pictures:
    """Images in front of the first message of a conversation.

    Attributes:
        images: in their order.
        prefix: text whose tokens hold a place for each of them.
        place: the id of such a token.
    """

    images: tuple[EmbeddedImage, ...]
    prefix: str
    place: int

    def put(self, ids: Sequence[int]) -> list[Token]:
        """The tokens of a prompt with the images in their places.

        Args:
            ids: of a prompt with :attr:`prefix` in it.

        Raises:
            UsageError: the prompt has other tokens that stand for images.
        """
        places = sum(token == self.place for token in ids)
        if places != len(self.images):
            raise UsageError(
                f"the prompt has places for {places} images, and {len(self.images)} are given",
                remedy="leave out of the text what stands for an image in the model's chat format",
            )
        left = iter(self.images)
        tokens: list[Token] = []
        for token in ids:
            tokens += next(left).tokens() if token == self.place else [token]
        return tokens


def open_pictures(
    files: Sequence[Path], engine: ImageEngine, tokenizer: Names, chat_config: Mapping[str, Any]
) -> Pictures:
    """Read image files and embed them.

    Args:
        files: of any format that Pillow reads.
        engine: of a model that takes images.
        tokenizer: of the model.
        chat_config: content of ``mlc-chat-config.json``.

    Raises:
        UsageError: the model takes no images, or a file can't be read.
        ToolchainError: Pillow is missing.
    """
    size = image_size(engine.metadata)
    fields = chat_config.get("model_config", {})
    ids = [fields.get(f"{name}_token_id") for name in ("vision_start", "image", "vision_end")]
    names = [tokenizer.name(token) if isinstance(token, int) else None for token in ids]
    start, place, end = names
    if start is None or place is None or end is None:
        raise UsageError(
            "the artifact's tokenizer lacks the tokens around images",
            where="mlc-chat-config.json: model_config",
            remedy="build it again from a model with its own tokenizer",
        )
    images = tuple(engine.embed_image(read_image(file, size)) for file in files)
    return Pictures(images, (start + place + end) * len(images), int(ids[1] or 0))


def image_size(metadata: Mapping[str, Any]) -> int:
    """Pixels of each side of the images that a library takes.

    Raises:
        UsageError: it takes none.
    """
    image = metadata.get("image")
    if image is None:
        raise UsageError(
            "this model takes no images",
            where="--image",
            remedy="leave it out, or build a model that takes images, such as qwen25-vl-3b",
        )
    return int(image["size"])


def read_image(file: Path, size: int) -> Pixels:
    """An image file, stretched to a square; uint8 ``(size, size, 3)``.

    The filter is bicubic with smoothing where the image gets smaller, as in the processor that the
    model was trained with.

    Raises:
        ToolchainError: Pillow is missing.
        UsageError: the file is missing or is no image.
    """
    try:
        library = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ToolchainError(
            "reading image files needs Pillow", remedy="run: pip install 'edgec[images]'"
        ) from error
    try:
        with library.open(file) as image:
            resized = image.convert("RGB").resize((size, size), library.Resampling.BICUBIC)
    # Damaged files raise what the format's decoder happens to run into.
    except (OSError, ValueError, SyntaxError, library.DecompressionBombError) as error:
        raise UsageError(
            f"can't be read as an image ({error})",
            where=str(file),
            remedy="give a PNG or JPEG file",
        ) from error
    return np.asarray(resized, np.uint8)
