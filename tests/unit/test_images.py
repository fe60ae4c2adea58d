"""Images as a config and a recipe say them: sizes, tokens, and contexts in which they are right."""

from __future__ import annotations

from typing import Any

import pytest

from edgec.errors import CheckpointError, UsageError
from edgec.models.images import DEFAULT_SIZE, ImageInput

CONFIG: dict[str, Any] = {"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 14}}


def image(size: int | None = None) -> ImageInput:
    found = ImageInput.of(CONFIG, size)
    assert found is not None
    return found


def test_the_default_size() -> None:
    found = image()
    assert (found.size, found.tokens, found.patch) == (DEFAULT_SIZE, 256, 28)
    assert (found.start_id, found.image_id, found.end_id) == (151652, 151655, 151653)


def test_tokens_of_the_config() -> None:
    config = {
        **CONFIG,
        "vision_start_token_id": 7,
        "image_token_id": 8,
        "vision_end_token_id": 9,
        "vision_config": {"patch_size": 16, "spatial_merge_size": 3},
    }
    assert ImageInput.of(config, 96) == ImageInput(96, 48, 7, 8, 9)


def test_text_alone() -> None:
    assert ImageInput.of({"model_type": "qwen2"}, None) is None
    with pytest.raises(UsageError, match="takes no images") as caught:
        ImageInput.of({"model_type": "qwen2"}, 448)
    assert caught.value.where == "image.size"


@pytest.mark.parametrize(("size", "nearest"), [(450, 448), (1, 28), (43, 56)])
def test_a_size_that_tokens_do_not_divide(size: int, nearest: int) -> None:
    with pytest.raises(UsageError, match="no multiple of 28") as caught:
        image(size)
    assert caught.value.remedy == f"write {nearest}"


def test_an_impossible_config() -> None:
    with pytest.raises(CheckpointError) as caught:
        ImageInput.of({"vision_config": {"patch_size": "14"}}, None)
    assert caught.value.where == "config.json: vision_config.patch_size"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"slides": True}, "context.sliding_window"),
        ({"prefill_chunk": 255}, "image.size"),
        ({"context_length": 65537}, "image.size"),
    ],
)
def test_contexts_in_which_images_would_be_wrong(change: dict[str, Any], field: str) -> None:
    right: dict[str, Any] = {"context_length": 65536, "prefill_chunk": 256, "slides": False}
    image().check(**right)
    with pytest.raises(UsageError) as caught:
        image().check(**{**right, **change})
    assert caught.value.where == field
