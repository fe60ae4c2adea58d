"""Images that a model takes among its text, as far as a config and a recipe say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import UsageError
from edgec.models.hf_config import ConfigReader

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SIZE = 448
MOST_IMAGES = 256
"""Images in one sequence that are counted exactly, see :mod:`edgec.models.mrope`."""

_WHERE = "image.size"


@dataclass(frozen=True)
class ImageInput:
    """What stands for an image in a prompt.

    Attributes:
        size: pixels of each side of the images that the library takes.
        patch: pixels of each side that one token stands for.
        start_id: the token in front of an image.
        image_id: the token whose place an image's embeddings take.
        end_id: the token behind an image.
    """

    size: int
    patch: int
    start_id: int
    image_id: int
    end_id: int

    @property
    def tokens(self) -> int:
        """Embeddings of one image."""
        return (self.size // self.patch) ** 2

    @property
    def longest_context(self) -> int:
        """Tokens of a context in which no more images fit than are counted exactly."""
        return MOST_IMAGES * self.tokens

    @classmethod
    def of(cls, config: Mapping[str, Any], size: int | None) -> ImageInput | None:
        """The images of a model.

        Args:
            config: content of ``config.json``.
            size: pixels of each side, of a recipe; None for the default.

        Returns:
            None where the model takes no images.

        Raises:
            UsageError: it takes none though a size is given, or none of this size.
            CheckpointError: a field of the config is impossible.
        """
        vision = config.get("vision_config")
        if not isinstance(vision, dict):
            if size is not None:
                raise UsageError(
                    "the model takes no images", where=_WHERE, remedy="leave out the section image"
                )
            return None
        read = ConfigReader(vision, "vision_config.")
        patch = read.positive("patch_size", 14) * read.positive("spatial_merge_size", 2)
        chosen = DEFAULT_SIZE if size is None else size
        if chosen % patch:
            raise UsageError(
                f"{chosen} is no multiple of {patch}, the pixels of each side of a token",
                where=_WHERE,
                remedy=f"write {max(1, round(chosen / patch)) * patch}",
            )
        top = ConfigReader(config)
        return cls(
            size=chosen,
            patch=patch,
            start_id=top.positive("vision_start_token_id", 151652),
            image_id=top.positive("image_token_id", 151655),
            end_id=top.positive("vision_end_token_id", 151653),
        )

    def check(self, *, context_length: int, prefill_chunk: int, slides: bool) -> None:
        """Refuse a context in which images can't be right.

        Args:
            context_length: tokens of the longest context.
            prefill_chunk: tokens of the longest prefill.
            slides: whether a window slides over the context.

        Raises:
            UsageError: with the field that is to change.
        """
        if slides:
            raise UsageError(
                "positions in images depend on all tokens before them, which a window forgets",
                where="context.sliding_window",
                remedy="leave it out",
            )
        if self.tokens > prefill_chunk:
            raise UsageError(
                f"an image of {self.size} x {self.size} pixels has {self.tokens} tokens, more than a"
                f" prefill of {prefill_chunk}: engines don't divide images",
                where=_WHERE,
                remedy=f"raise context.prefill_chunk to {self.tokens}, or write a smaller size",
            )
        if context_length > self.longest_context:
            raise UsageError(
                f"a context of {context_length} tokens has room for more than {MOST_IMAGES} images of"
                f" {self.size} x {self.size} pixels",
                where=_WHERE,
                remedy=f"lower context.length to {self.longest_context}, or write a larger size",
            )
