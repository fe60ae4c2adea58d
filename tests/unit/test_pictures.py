"""Image files in prompts: read, embedded, and put where the chat format has them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.errors import ToolchainError, UsageError
from edgec.runtime.embedded_images import EmbeddedImage, ImageToken, text_ids, with_images
from edgec.runtime.pictures import Pictures, open_pictures

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

CONFIG = {
    "model_config": {"vision_start_token_id": 5, "image_token_id": 6, "vision_end_token_id": 7}
}


class Engine:
    def __init__(self, metadata: dict[str, Any]) -> None:
        self.metadata = metadata
        self.given: list[np.ndarray] = []

    def embed_image(self, pixels: np.ndarray) -> EmbeddedImage:
        self.given.append(pixels)
        return EmbeddedImage(np.full((3, 2), len(self.given), np.float32))


class Names:
    def name(self, token: int) -> str | None:
        return {5: "<start>", 6: "<image>", 7: "<end>"}.get(token)


class Picture:
    """What Pillow's ``Image.open`` returns, as far as it is used."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def convert(self, mode: str) -> Picture:
        assert mode == "RGB"
        return self

    def resize(self, size: tuple[int, int], filter_: str) -> np.ndarray:
        assert filter_ == "bicubic"
        return np.resize(self.pixels, (size[1], size[0], 3))


@pytest.fixture
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(file: Path) -> Picture:
        return Picture(np.frombuffer(file.read_bytes(), np.uint8))

    module: Any = ModuleType("PIL.Image")
    module.open = read
    module.Resampling = SimpleNamespace(BICUBIC="bicubic")
    module.DecompressionBombError = MemoryError
    monkeypatch.setitem(sys.modules, "PIL", ModuleType("PIL"))
    monkeypatch.setitem(sys.modules, "PIL.Image", module)


@pytest.mark.usefixtures("pillow")
def test_files_become_rows_in_their_places(tmp_path: Path) -> None:
    files = []
    for value in (3, 4):
        files.append(tmp_path / f"{value}.png")
        files[-1].write_bytes(bytes([value]))
    engine = Engine({"image": {"size": 4}})
    pictures = open_pictures(files, engine, Names(), CONFIG)
    assert [pixels.shape for pixels in engine.given] == [(4, 4, 3)] * 2
    assert [int(pixels[0, 0, 0]) for pixels in engine.given] == [3, 4]
    assert pictures.prefix == "<start><image><end>" * 2
    tokens = pictures.put([1, 5, 6, 7, 5, 6, 7, 2])
    first, second = pictures.images
    assert tokens == [
        *(1, 5),
        *(ImageToken(first, row) for row in range(3)),
        *(7, 5),
        *(ImageToken(second, row) for row in range(3)),
        *(7, 2),
    ]
    np.testing.assert_array_equal(text_ids(tokens), [1, 5, 0, 0, 0, 7, 5, 0, 0, 0, 7, 2])
    rows = with_images(np.zeros((12, 2), np.float32), tokens)
    np.testing.assert_array_equal(rows[:, 0], [0, 0, 1, 1, 1, 0, 0, 2, 2, 2, 0, 0])


def test_images_are_equal_to_themselves_alone() -> None:
    """So that a conversation is computed again where another image stands."""
    first, second = (EmbeddedImage(np.zeros((1, 2), np.float32)) for _ in range(2))
    assert first.tokens() == first.tokens()
    assert first.tokens() != second.tokens()


def test_text_that_stands_for_more_images_is_refused() -> None:
    pictures = Pictures((EmbeddedImage(np.zeros((1, 2), np.float32)),), "", 6)
    with pytest.raises(UsageError, match="places for 2 images, and 1 are given"):
        pictures.put([6, 6])


def test_a_model_without_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes no images"):
        open_pictures([tmp_path / "a.png"], Engine({}), Names(), CONFIG)


def test_a_tokenizer_without_the_tokens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lacks the tokens around images"):
        open_pictures([tmp_path / "a.png"], Engine({"image": {"size": 4}}), Names(), {})


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ToolchainError, match="needs Pillow"):
        open_pictures([tmp_path / "a.png"], Engine({"image": {"size": 4}}), Names(), CONFIG)


@pytest.mark.usefixtures("pillow")
def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read as an image") as caught:
        open_pictures([tmp_path / "a.png"], Engine({"image": {"size": 4}}), Names(), CONFIG)
    assert caught.value.where == str(tmp_path / "a.png")
