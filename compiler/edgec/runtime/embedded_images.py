"""Images among the tokens of a prompt: rows of embeddings that stand where a token's would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class EmbeddedImage:
    """What ``image_embed`` made of an image; equal to nothing but itself.

    Attributes:
        rows: ``(tokens, width)``, of the embeddings' dtype.
    """

    rows: npt.NDArray[Any]

    def tokens(self) -> list[ImageToken]:
        """The image as tokens of a prompt."""
        return [ImageToken(self, row) for row in range(len(self.rows))]


@dataclass(frozen=True)
class ImageToken:
    """One row of an image.

    Attributes:
        image: whose.
        row: which.
    """

    image: EmbeddedImage
    row: int


Token = int | ImageToken
"""What a sequence is made of."""


def text_ids(tokens: Sequence[Token]) -> npt.NDArray[np.int32]:
    """Ids of the tokens, 0 in place of rows of images; int32 ``(n,)``."""
    return np.array([token if isinstance(token, int) else 0 for token in tokens], np.int32)


def with_images(embedded: npt.NDArray[Any], tokens: Sequence[Token]) -> npt.NDArray[Any]:
    """Embeddings of :func:`text_ids`, with the rows of images in their places.

    Args:
        embedded: ``(n, width)``.
        tokens: ``n`` of them.
    """
    result = embedded.copy()
    for index, token in enumerate(tokens):
        if isinstance(token, ImageToken):
            result[index] = token.image.rows[token.row]
    return result
