from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from edgec.errors import BuildError, CheckpointError
from edgec.parallel import Workspace
from edgec.positioned import PositionedFile
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.store import StoredTensor, StoreIndex, header, segments
from edgec.quantization.tensors import QuantizedTensor
from edgec.quantization.writer import QuantizedCheckpointWriter

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[Any]


INDEX = StoreIndex(
    dtype="float16",
    tensors=(
        StoredTensor(name="n", shape=(3,), dtype="float16"),
        StoredTensor(name="a", shape=(5, 16), dtype="float16", bits=4, group_size=8, method="rtn"),
        StoredTensor(
            name="b", shape=(4, 16), dtype="float32", bits=8, group_size=16, method="x", zeros=True
        ),
    ),
)


def contents() -> tuple[QuantizedTensor, QuantizedTensor, Array]:
    random = np.random.default_rng(0)
    a = QuantizedTensor(
        random.integers(-8, 8, (5, 16), np.int8), random.random((5, 2)).astype(np.float16), 4
    )
    b = QuantizedTensor(
        random.integers(-128, 128, (4, 16)).astype(np.int8),
        random.random((4, 1), np.float32),
        8,
        random.integers(-9, 9, (4, 1), np.int8),
    )
    return a, b, np.array([1, 2, 3], np.float16)


def rows(tensor: QuantizedTensor, start: int, stop: int) -> QuantizedTensor:
    zeros = None if tensor.zeros is None else tensor.zeros[start:stop]
    return QuantizedTensor(tensor.codes[start:stop], tensor.scales[start:stop], tensor.bits, zeros)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    a, b, n = contents()
    workspace = Workspace()
    with QuantizedCheckpointWriter(tmp_path, INDEX) as writer:
        for start, stop in ((3, 5), (0, 1), (1, 3)):
            writer.write("a", start, rows(a, start, stop), workspace)
        writer.write("b", 0, b, workspace)
        writer.write_plain("n", 1, n[1:])
        writer.write_plain("n", 0, n[:1])
        writer.finish()
    return tmp_path


def test_what_was_written_is_read(folder: Path) -> None:
    a, b, n = contents()
    with QuantizedCheckpoint(folder) as store:
        assert store.names() == ["n", "a", "b"]
        assert store.dtype == "float16"
        assert store.shape("a") == (5, 16)
        assert store.scheme("n") is None
        assert store.scheme("a").bits == 4
        assert store.scheme("b").scale_dtype == "float32"
        assert store.scheme("b").zeros
        assert not store.scheme("a").zeros
        np.testing.assert_array_equal(store.plain("n", 1, 3), n[1:])
        for name, tensor in (("a", a), ("b", b)):
            found = store.quantized(name, 1, 4)
            np.testing.assert_array_equal(found.codes, tensor.codes[1:4])
            np.testing.assert_array_equal(found.scales, tensor.scales[1:4])
            np.testing.assert_array_equal(found.dequantize(), rows(tensor, 1, 4).dequantize())


def test_the_data_file_is_valid_safetensors(folder: Path) -> None:
    load_file = pytest.importorskip("safetensors.numpy").load_file
    a, b, n = contents()
    found = load_file(folder / "quantized.safetensors")
    assert set(found) == {"n", "a#codes", "a#scales", "b#codes", "b#scales", "b#zeros"}
    np.testing.assert_array_equal(found["n"], n)
    np.testing.assert_array_equal(found["a#scales"], a.scales)
    np.testing.assert_array_equal(found["b#codes"], b.codes)
    np.testing.assert_array_equal(found["b#zeros"], b.zeros)
    assert found["a#codes"].dtype == np.uint8
    assert found["a#codes"].shape == (5, 8)


def test_every_array_is_aligned_to_its_type() -> None:
    placed = segments(INDEX)
    assert len(header(placed)) % 8 == 0
    end = 0
    for segment in placed.values():
        assert segment.offset == end
        assert segment.offset % np.dtype(segment.dtype).itemsize == 0
        end += segment.nbytes
    assert next(iter(placed)) == "b#scales"


def test_the_index_is_plain_json(folder: Path) -> None:
    index = json.loads((folder / "quantized.json").read_text())
    assert index["schema"] == "edgec.quantized-checkpoint/v1"
    assert index["tensors"][0] == {"name": "n", "shape": [3], "dtype": "float16"}
    assert index["tensors"][1] == {
        "name": "a",
        "shape": [5, 16],
        "dtype": "float16",
        "bits": 4,
        "group_size": 8,
        "method": "rtn",
    }


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    with QuantizedCheckpointWriter(tmp_path, INDEX):
        pass
    with pytest.raises(CheckpointError, match=r"quantized\.json: can't be read: No such file"):
        QuantizedCheckpoint(tmp_path)


def test_a_truncated_data_file_is_refused(folder: Path) -> None:
    data = folder / "quantized.safetensors"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"quantized\.safetensors: has \d+ bytes in place of"):
        QuantizedCheckpoint(folder)


def test_an_index_of_other_tensors_is_refused(folder: Path) -> None:
    index = folder / "quantized.json"
    index.write_text(index.read_text().replace('"name": "a"', '"name": "c"'))
    with pytest.raises(CheckpointError, match="holds other tensors"):
        QuantizedCheckpoint(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/v1", "/v2", "schema: Input should be"),
        ('"bits": 4', '"bits": 5', r"tensors\.1\.bits"),
        ('"bits": 4', '"width": 4', r"tensors\.1\.width"),
        ("{", "[", "Invalid JSON"),
    ],
)
def test_a_damaged_index_is_refused_with_the_field(
    folder: Path, old: str, new: str, message: str
) -> None:
    index = folder / "quantized.json"
    index.write_text(index.read_text().replace(old, new, 1))
    with pytest.raises(CheckpointError, match=message):
        QuantizedCheckpoint(folder)


def test_reading_beyond_the_end_of_a_file_says_where(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1234")
    out = np.zeros(3, np.int16)
    with (
        PositionedFile.open(path) as file,
        pytest.raises(CheckpointError, match="x: ends at byte 4, 3 bytes too early"),
    ):
        file.read_into(out, 1)


def test_a_file_larger_than_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no room for its .* MiB"):
        PositionedFile.create(tmp_path / "x", 1 << 60)
