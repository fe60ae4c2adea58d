"""Positions of multimodal tokens from their numbers, their markers and a mean that was rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax.frontend import nn

from edgec.models import mrope
from edgec.models.images import MOST_IMAGES

SIDE, HEADS, HEAD_DIM, HIDDEN = 8, 2, 4, 4
TOKENS = SIDE * SIDE


class Positions(nn.Module):  # type: ignore[misc]
    def forward(self, numbers: Any, embeddings: Any, means: Any) -> Any:
        return mrope._positions(numbers, embeddings, means, side=SIDE)


@pytest.fixture(scope="module")
def compute() -> Any:
    """Numbers ``(n,)``, markers ``(n, 4)`` and means ``(n,)`` to positions ``(3, n)``."""
    spec = {
        "forward": {
            "numbers": nn.spec.Tensor(["n"], "int32"),
            "embeddings": nn.spec.Tensor([1, "n", HIDDEN + mrope.MARKERS], "float16"),
            "means": nn.spec.Tensor([1, "n", HEADS, HEAD_DIM], "float16"),
            "$": {"param_mode": "none", "effect_mode": "none"},
        }
    }
    mod, _ = Positions().export_tvm(spec=spec)
    machine = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())

    def run(numbers: Any, markers: Any, means: Any) -> np.ndarray:
        count = len(numbers)
        embeddings = np.full((1, count, HIDDEN + mrope.MARKERS), 7, "float16")
        embeddings[0, :, HIDDEN:] = markers
        spread = np.full((1, count, HEADS, HEAD_DIM), np.nan, "float16")
        spread[0, :, 0, 0] = means
        arrays = (np.asarray(numbers, "int32"), embeddings, spread)
        found = machine["forward"](*(tvm.runtime.tensor(array) for array in arrays))
        result: np.ndarray = found.numpy()
        return result

    return run


def markers_of(images: int) -> np.ndarray:
    """Each image between three tokens of text, and three behind the last."""
    image = mrope.image_markers(SIDE, "float16")
    text = np.zeros((3, mrope.MARKERS), "float16")
    return np.concatenate([part for _ in range(images) for part in (text, image)] + [text])


def positions_of(images: int) -> np.ndarray:
    """By the definition: an image begins where the text ends, and the text goes on after its side."""
    found, position = [], 0
    for part in range(images + 1):
        found += [(position + step,) * 3 for step in range(3)]
        position += 3
        if part < images:
            found += [(position, position + n // SIDE, position + n % SIDE) for n in range(TOKENS)]
            position += SIDE
    return np.array(found).T


@pytest.mark.parametrize("rounding", [-1, 0, 1])
def test_positions_are_exact_though_means_are_rounded_three_times(
    compute: Any, rounding: int
) -> None:
    """As far as float16 allows, upwards and downwards, with as many images as there may be."""
    markers = markers_of(MOST_IMAGES)
    numbers = np.arange(len(markers))
    means = 64 * np.cumsum(markers[:, 2].astype("float64")) / (numbers + 1)
    means *= (1 + rounding * 2.0**-11) ** 2  # the third time is that of the type itself
    found = compute(numbers, markers, means.astype("float16"))
    np.testing.assert_array_equal(found, positions_of(MOST_IMAGES))


def test_text_alone_has_the_numbers_of_its_tokens(compute: Any) -> None:
    numbers = np.array([0, 5, 4095, 131071])
    found = compute(numbers, np.zeros((4, mrope.MARKERS)), np.zeros(4))
    np.testing.assert_array_equal(found, np.tile(numbers, (3, 1)))
