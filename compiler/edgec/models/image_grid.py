"""Where the patches of an image stand: the order in which a vision tower takes them, and windows.

Plain arithmetic on one fixed size of images, so that a compiled function holds the results as
constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ImageGrid:
    """A square image in patches, of which squares of neighbours become one token.

    Attributes:
        size: pixels of each side.
        patch: pixels of each side of a patch.
        merge: patches of each side that one token stands for.
        window: pixels of each side of the windows that most layers attend in.
    """

    size: int
    patch: int
    merge: int
    window: int

    @property
    def side(self) -> int:
        """Tokens along each side."""
        return self.size // (self.patch * self.merge)

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return self.side**2

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.tokens * self.merge**2

    def token_order(self) -> Indices:
        """Raster numbers of the tokens, window by window; int32 ``(tokens,)``."""
        rows, columns = np.divmod(np.arange(self.tokens), self.side)
        reach = self._reach
        # The last key counts most: windows in raster order, then tokens within a window.
        order = np.lexsort((columns, rows, columns // reach, rows // reach))
        return order.astype(np.int32)

    def patch_places(self) -> Indices:
        """Row and column of every patch in the tower's order; int32 ``(patches, 2)``.

        The patches of a token stand together, tokens as :meth:`token_order` says.
        """
        rows, columns = np.divmod(self.token_order(), self.side)
        inner = np.indices((self.merge, self.merge)).reshape(2, -1)
        places = [
            self.merge * outer[:, None] + within
            for outer, within in zip((rows, columns), inner, strict=True)
        ]
        return np.stack([place.reshape(-1) for place in places], axis=1).astype(np.int32)

    def window_starts(self) -> Indices:
        """First patch of each window in the tower's order, and the end; int32."""
        rows, columns = np.divmod(self.token_order(), self.side)
        across = -(-self.side // self._reach)
        numbers = rows // self._reach * across + columns // self._reach
        counts = np.bincount(numbers) * self.merge**2
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    @property
    def _reach(self) -> int:
        """Tokens along each side of a window."""
        return self.window // (self.patch * self.merge)
