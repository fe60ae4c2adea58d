"""An image through the artifact and through its reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgec.runtime.pictures import image_size
from edgec.verification.figures import rounded
from edgec.verification.tolerance import ROUNDED_TIMES

if TYPE_CHECKING:
    from edgec.runtime.pictures import ImageEngine

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]

# Of CLIP's pictures.
_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
_DEVIATION = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
# In float16 each of a tower's layers rounds its hidden states some ten times, by 2**-11 of them.
_TOLERANCE = {"float16": 5e-2, "float32": 1e-4}


class ImageModel(Protocol):
    """A reference that takes images."""

    def image_rows(self, pixels: Pixels) -> Rows:
        """The embeddings ``(tokens, hidden)`` of an image ``(size, size, 3)``."""


def image_tokens(engine: object) -> int:
    """Tokens of the images that an engine's library takes; 0 if it, or the engine, takes none."""
    if not getattr(engine, "embeds_images", False):
        return 0
    image = getattr(engine, "metadata", {}).get("image")
    return 0 if image is None else int(image["tokens"])


def drawn_picture(size: int) -> Pixels:
    """A disc, stripes and a gradient, so that every patch is different; ``(size, size, 3)``."""
    y, x = np.indices((size, size)) / size
    disc = np.hypot(y - 0.4, x - 0.55) < 0.3
    stripes = np.sin(40 * (x + 2 * y)) > 0
    channels = (255 * disc, 90 + 110 * stripes * x, 255 * y)
    return np.stack(channels, axis=2).astype(np.uint8)


def image_patches(pixels: Pixels, patch: int, merge: int) -> Rows:
    """An image as transformers' processor for these models hands it over.

    Args:
        pixels: ``(size, size, 3)``.
        patch: pixels of each side of a patch.
        merge: patches of each side of a token.

    Returns:
        Float32 ``(patches, 3 * 2 * patch * patch)``: those of a token together, and twice the same
        picture, as in a film that stands still.
    """
    side = len(pixels) // (patch * merge)
    scaled = (pixels.astype(np.float32) / 255 - _MEAN) / _DEVIATION
    parts = scaled.reshape(side, merge, patch, side, merge, patch, 3)
    # Token row and column, patch row and column within; then channel, pixel row and column.
    ordered = parts.transpose(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, :, None]
    twice = np.broadcast_to(ordered, (*ordered.shape[:5], 2, patch, patch))
    return np.ascontiguousarray(twice.reshape((side * merge) ** 2, -1), np.float32)


def image_figures(
    engine: ImageEngine, reference: ImageModel, dtype: str, rounding: ImageModel | None = None
) -> dict[str, Any]:
    """How far the embeddings of a picture are from the reference's.

    Args:
        engine: of a library that takes images.
        reference: with the weights that are shipped.
        dtype: of the artifact's activations.
        rounding: the reference with activations rounded as the artifact's kernels do it; None where
            they don't.

    Returns:
        ``tokens`` of an image, ``max_error``, the largest difference relative to the largest value, and
        its ``tolerance``.
    """
    pixels = drawn_picture(image_size(engine.metadata))
    wanted = reference.image_rows(pixels)
    found = engine.embed_image(pixels).rows[:, : wanted.shape[1]].astype(np.float32)
    scale = np.abs(wanted).max()
    error = float(np.abs(found - wanted).max() / scale)
    limit = _TOLERANCE[dtype]
    if rounding is not None:
        limit += ROUNDED_TIMES * float(np.abs(rounding.image_rows(pixels) - wanted).max() / scale)
    return {
        "tokens": len(wanted),
        "max_error": rounded(error),
        "tolerance": rounded(limit),
    }
