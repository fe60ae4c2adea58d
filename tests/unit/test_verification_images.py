"""Pictures for verification: as the processor hands them over, and how errors are judged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgec.errors import VerificationError
from edgec.runtime.embedded_images import EmbeddedImage
from edgec.verification.images import (
    drawn_picture,
    image_figures,
    image_patches,
    image_tokens,
)
from edgec.verification.verdict import check_agreement

SIZE, PATCH, MERGE = 24, 4, 2
METADATA = {"image": {"size": SIZE, "tokens": 9}}


class Engine:
    metadata = METADATA
    embeds_images = True

    def __init__(self, error: float) -> None:
        self.error = error

    def embed_image(self, pixels: np.ndarray) -> EmbeddedImage:
        assert pixels.shape == (SIZE, SIZE, 3)
        return EmbeddedImage(np.array([[2 + self.error, 1, 9, 9, 9, 9]], np.float32))


class Model:
    def image_rows(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape == (SIZE, SIZE, 3)
        return np.array([[2, 1]], np.float32)


def test_patches_are_squares_of_pixels_of_which_those_of_a_token_stand_together() -> None:
    pixels = drawn_picture(SIZE)
    patches = image_patches(pixels, PATCH, MERGE)
    assert patches.shape == ((SIZE // PATCH) ** 2, 3 * 2 * PATCH**2)
    assert patches.dtype == np.float32
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    # The fourth patch of the second token of the second row of tokens.
    row, column = (1 * MERGE + 1) * PATCH, (1 * MERGE + 1) * PATCH
    index = (1 * (SIZE // PATCH // MERGE) + 1) * MERGE**2 + 3
    for channel in range(3):
        for frame in range(2):
            for y in range(PATCH):
                for x in range(PATCH):
                    place = ((channel * 2 + frame) * PATCH + y) * PATCH + x
                    value = pixels[row + y, column + x, channel] / 255
                    wanted = (value - mean[channel]) / deviation[channel]
                    assert patches[index, place] == pytest.approx(wanted, abs=1e-6)


def test_every_patch_of_the_drawn_picture_is_another() -> None:
    patches = image_patches(drawn_picture(448), 14, 2)
    assert len(np.unique(patches, axis=0)) == len(patches)


def test_figures_are_relative_to_the_largest_value() -> None:
    figures = image_figures(Engine(1.0), Model(), "float32")
    assert figures == {"tokens": 1, "max_error": 0.5, "tolerance": 1e-4}
    with pytest.raises(VerificationError, match="embeddings of an image differ"):
        check_agreement({"images": figures})
    check_agreement({"images": image_figures(Engine(0.0), Model(), "float32")})


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_what_is_no_number_is_an_error(error: float) -> None:
    with pytest.raises(VerificationError):
        check_agreement({"images": image_figures(Engine(error), Model(), "float16")})


def test_engines_that_take_images() -> None:
    other: Any = SimpleNamespace(metadata=METADATA)
    assert image_tokens(Engine(0.0)) == 9
    assert image_tokens(other) == 0
    assert image_tokens(SimpleNamespace(embeds_images=True, metadata={})) == 0
