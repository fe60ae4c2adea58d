"""Where patches stand: windows of neighbours, and every patch once."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgec.models.image_grid import ImageGrid

GRIDS = st.builds(
    lambda side, patch, merge, reach: ImageGrid(
        side * patch * merge, patch, merge, reach * patch * merge
    ),
    st.integers(1, 12),
    st.sampled_from((2, 14)),
    st.integers(1, 3),
    st.integers(1, 5),
)


def test_an_image_of_qwen() -> None:
    grid = ImageGrid(size=448, patch=14, merge=2, window=112)
    assert (grid.side, grid.tokens, grid.patches) == (16, 256, 1024)
    np.testing.assert_array_equal(grid.window_starts(), np.arange(17) * 64)
    # The first window has four rows of four tokens; the second begins at its right.
    np.testing.assert_array_equal(
        grid.token_order()[:17],
        [*range(4), *range(16, 20), *range(32, 36), *range(48, 52), 4],
    )
    np.testing.assert_array_equal(
        grid.patch_places()[:6], [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3)]
    )


def test_windows_at_the_edges_are_smaller() -> None:
    grid = ImageGrid(size=140, patch=14, merge=2, window=56)
    sizes = np.diff(grid.window_starts())
    np.testing.assert_array_equal(sizes, [16, 16, 8, 16, 16, 8, 8, 8, 4])


@given(GRIDS)
def test_every_patch_stands_once_in_its_window(grid: ImageGrid) -> None:
    places = grid.patch_places()
    side = grid.side * grid.merge
    raster = places[:, 0] * side + places[:, 1]
    np.testing.assert_array_equal(np.sort(raster), np.arange(grid.patches))
    starts = grid.window_starts()
    assert starts[0] == 0
    assert starts[-1] == grid.patches
    reach = grid.window // grid.patch
    found = set()
    for first, end in itertools.pairwise(starts):
        window = {tuple(place) for place in places[first:end] // reach}
        assert len(window) == 1
        found |= window
    assert len(found) == len(starts) - 1


@given(GRIDS)
def test_the_patches_of_a_token_stand_together(grid: ImageGrid) -> None:
    places = grid.patch_places().reshape(grid.tokens, -1, 2)
    tokens = places // grid.merge
    assert (tokens == tokens[:, :1]).all()
    raster = tokens[:, 0, 0] * grid.side + tokens[:, 0, 1]
    np.testing.assert_array_equal(raster, grid.token_order())
