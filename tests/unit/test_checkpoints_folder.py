"""A model folder: one file or shards, and what is wrong with it when something is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy

from edgec.checkpoints import safetensors_file
from edgec.checkpoints.folder import FolderCheckpoint, read_config, tokenizer_files
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
A = np.arange(6, dtype=np.float32).reshape(3, 2)
B = np.arange(4, dtype=np.float16)


def save(path: Path, **tensors: np.ndarray) -> None:
    path.write_bytes(safetensors.numpy.save(tensors))


def write_index(folder: Path, weight_map: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


@pytest.fixture
def sharded(folder: Path) -> Path:
    save(folder / FIRST, a=A)
    save(folder / SECOND, b=B)
    write_index(folder, {"a": FIRST, "b": SECOND})
    return folder


def test_single_file(folder: Path) -> None:
    save(folder / "model.safetensors", a=A, b=B)
    checkpoint = FolderCheckpoint(folder)
    assert checkpoint.config == {"model_type": "llama"}
    assert checkpoint.names() == ["a", "b"]
    assert checkpoint.info("b").dtype == "F16"
    assert checkpoint.files() == [folder / "config.json", folder / "model.safetensors"]
    np.testing.assert_array_equal(checkpoint.rows("a", 1, 3), A[1:3])


def test_shards(sharded: Path) -> None:
    checkpoint = FolderCheckpoint(sharded)
    assert checkpoint.names() == ["a", "b"]
    assert checkpoint.info("b").file == SECOND
    assert [path.name for path in checkpoint.files()] == ["config.json", INDEX, FIRST, SECOND]
    np.testing.assert_array_equal(checkpoint.rows("a", 0, 2), A[:2])
    np.testing.assert_array_equal(checkpoint.rows("b", 1, 4), B[1:])


def test_headers_are_read_once_and_only_when_needed(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = safetensors_file._open

    def spy(path: Path) -> tuple[int, int]:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(safetensors_file, "_open", spy)
    checkpoint = FolderCheckpoint(sharded)
    assert opened == []
    checkpoint.rows("b", 0, 1)
    checkpoint.rows("b", 1, 2)
    assert opened == [SECOND]
    checkpoint.names()
    checkpoint.names()
    assert opened == [SECOND, FIRST]


def test_files_may_be_links_into_a_cache(folder: Path) -> None:
    blobs = folder / "blobs"
    blobs.mkdir()
    save(blobs / "0123", a=A)
    (folder / "model.safetensors").symlink_to("blobs/0123")
    assert FolderCheckpoint(folder).info("a").file == "model.safetensors"


def test_the_index_wins_if_its_shards_are_there(sharded: Path) -> None:
    save(sharded / "model.safetensors", c=A)
    assert FolderCheckpoint(sharded).names() == ["a", "b"]
    (sharded / FIRST).unlink()
    assert FolderCheckpoint(sharded).names() == ["c"]


def test_missing_shard(sharded: Path) -> None:
    (sharded / SECOND).unlink()
    with pytest.raises(CheckpointError, match=f"shard {SECOND} is missing.*; download") as caught:
        FolderCheckpoint(sharded)
    assert caught.value.where == str(sharded)
    (sharded / FIRST).unlink()
    with pytest.raises(CheckpointError, match="2 of 2 shards are missing") as caught:
        FolderCheckpoint(sharded)
    assert FIRST in str(caught.value)
    assert SECOND in str(caught.value)


def test_damaged_shard_names_itself(sharded: Path) -> None:
    raw = (sharded / SECOND).read_bytes()
    (sharded / SECOND).write_bytes(raw[:-1])
    checkpoint = FolderCheckpoint(sharded)
    checkpoint.rows("a", 0, 1)
    with pytest.raises(CheckpointError, match=f"{SECOND}: the file has .* promises"):
        checkpoint.rows("b", 0, 1)


def test_index_and_shards_that_contradict_each_other(sharded: Path) -> None:
    save(sharded / SECOND, b=B, extra=B)
    with pytest.raises(CheckpointError, match=f"tensor extra is in {SECOND}, of which the index"):
        FolderCheckpoint(sharded).names()
    save(sharded / SECOND, other=B)
    with pytest.raises(CheckpointError, match="2 tensors are not where the index says") as caught:
        FolderCheckpoint(sharded).names()
    assert f"tensor b is not in {SECOND}" in str(caught.value)
    with pytest.raises(CheckpointError, match=f"tensor b is not in {SECOND}, where the index says"):
        FolderCheckpoint(sharded).rows("b", 0, 1)
    save(sharded / SECOND, a=A, b=B)
    with pytest.raises(CheckpointError, match=f"tensor a is in {SECOND}, of which the index"):
        FolderCheckpoint(sharded).names()


def test_unknown_tensor(sharded: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{INDEX}: tensor c is not in the weight_map"):
        FolderCheckpoint(sharded).info("c")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "sub\\model.safetensors",
        "C:model.safetensors",
        "..",
        "",
        "model.bin",
        "model\n.safetensors",
        "model\0.safetensors",
        5,
        None,
    ],
)
def test_an_index_can_not_point_elsewhere(folder: Path, name: object) -> None:
    write_index(folder, {"a": name})
    with pytest.raises(CheckpointError, match="weight_map sends tensor 'a' to") as caught:
        FolderCheckpoint(folder)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("weight_map", [{}, [], None, "x"])
def test_index_without_a_map(folder: Path, weight_map: object) -> None:
    write_index(folder, weight_map)
    with pytest.raises(CheckpointError, match=f"{INDEX}: its weight_map is not an object"):
        FolderCheckpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.pth", "m.pkl", "m.ckpt"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=rf"pickle \({name}\).*run any code.*convert it with"):
        FolderCheckpoint(folder)


def test_folders_without_weights(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="has no weights"):
        FolderCheckpoint(folder)
    save(folder / FIRST, a=A)
    with pytest.raises(CheckpointError, match=f"has {FIRST} but neither .* download {INDEX}"):
        FolderCheckpoint(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json: there is no such file; give the folder of a model"),
        (b"", r"config.json:1:1: is not valid JSON"),
        (b'{\n "a": 1,\n}', r"config.json:3:1: is not valid JSON"),
        (b"[]", "holds a JSON list where an object belongs"),
        (b"null", "holds a JSON null"),
        (b"true", "holds a JSON boolean"),
        (b'{"a": "\xff"}', r"is not UTF-8 text \(byte 7\)"),
        (b"[" * 100_000, "is JSON that can't be read"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_damaged_config(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


def test_config_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="is not a file"):
        read_config(tmp_path)


def test_config_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_config(tmp_path) == {"a": 1}


def test_endless_config_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="has more than 67,108,864 bytes"):
        read_config(tmp_path)


def test_tokenizer_files(folder: Path) -> None:
    for name in ("tokenizer.json", "generation_config.json", "README.md"):
        (folder / name).write_text("{}")
    (folder / "vocab.json").mkdir()
    assert [path.name for path in tokenizer_files(folder)] == [
        "tokenizer.json",
        "generation_config.json",
    ]


@pytest.mark.parametrize("shards", [False, True])
def test_names_of_wrapped_models_are_the_plain_ones(folder: Path, shards: bool) -> None:
    """transformers before and after it wrapped models that take images."""
    tensors = {"model.language_model.norm.weight": A, "model.visual.merger.bias": B, "other": B}
    if shards:
        save(folder / FIRST, **tensors)
        write_index(folder, dict.fromkeys(tensors, FIRST))
    else:
        save(folder / "model.safetensors", **tensors)
    checkpoint = FolderCheckpoint(folder)
    assert checkpoint.names() == ["model.norm.weight", "other", "visual.merger.bias"]
    assert checkpoint.info("visual.merger.bias").name == "visual.merger.bias"
    np.testing.assert_array_equal(checkpoint.rows("model.norm.weight", 1, 3), A[1:3])
    with pytest.raises(CheckpointError):
        checkpoint.info("model.absent")
