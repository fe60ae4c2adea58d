from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.errors import CheckpointError, VerificationError
from edgec.layouts.shard_writer import TensorCacheWriter
from edgec.layouts.shards import plan_shards
from edgec.layouts.specs import TensorSpec
from edgec.layouts.tensor_cache import TensorCache

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {
    "odd": np.arange(3, dtype=np.float16),
    "words": np.arange(12, dtype=np.uint32).reshape(3, 4),
    "scalars": np.array([[1.5]], np.float32),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    specs = [TensorSpec(n, a.shape, a.dtype.name, n) for n, a in ARRAYS.items()]
    writer = TensorCacheWriter(tmp_path, plan_shards(specs, 57, alignment=2), {"ParamSize": 3})
    for shard in writer.shards:
        writer.write_shard(shard, (ARRAYS[p.spec.name] for p in shard.placements))
    writer.finish()
    return tmp_path


def test_arrays_are_read_only_views(folder: Path) -> None:
    cache = TensorCache(folder)
    assert cache.names() == ["odd", "words", "scalars"]
    assert cache.metadata == {"ParamSize": 3}
    assert "odd" in cache
    assert "even" not in cache
    for name, array in ARRAYS.items():
        found = cache.array(name)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
        assert not found.flags.writeable
        assert not found.flags.owndata
    assert np.shares_memory(cache.array("odd"), cache.array("odd"))
    with pytest.raises(CheckpointError, match="has no tensor even"):
        cache.array("even")


def test_copy_on_write_never_reaches_the_file(folder: Path) -> None:
    view = TensorCache(folder, mode="c").array("words")
    view[:] = 7
    assert (view == 7).all()
    np.testing.assert_array_equal(TensorCache(folder).array("words"), ARRAYS["words"])


def test_verify_finds_a_flipped_bit(folder: Path) -> None:
    TensorCache(folder).verify()
    shard = folder / "params_shard_1.bin"
    raw = bytearray(shard.read_bytes())
    raw[2] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(VerificationError, match=r"params_shard_1\.bin: its MD5 sum is"):
        TensorCache(folder).verify()


def edited(folder: Path, *path_and_value: object) -> None:
    """Set one value of the index; a number beyond a list's end appends a copy of its last."""
    *path, key, value = path_and_value
    index_file = folder / "tensor-cache.json"
    index = json.loads(index_file.read_text())
    place = index
    for step in path:
        place = place[step]
    place[key] = value
    index_file.write_text(json.dumps(index))


RECORD = ("records", 0, "records", 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ((*RECORD, "nbytes", 47), "words has nbytes 47, but 3x4 uint32 is 48"),
        ((*RECORD, "shape", [3, 5]), "words has nbytes 48, but 3x5 uint32 is 60"),
        (
            (*RECORD, "shape", [-3, -4]),
            r"records\.0\.records\.1\.shape\.0: Input should be greater",
        ),
        ((*RECORD, "dtype", "float8"), r"records\.0\.records\.1\.dtype: Input should be 'float16'"),
        ((*RECORD, "byteOffset", 5), "words in params_shard_0.bin overlaps"),
        ((*RECORD, "byteOffset", 7), "words ends at byte 55 of params_shard_0.bin, which has 54"),
        ((*RECORD, "byteOffset", -1), "byteOffset: Input should be greater"),
        ((*RECORD, "name", "odd"), "two tensors odd"),
        (("records", 1, "records", 0, "format", "f32-to-bf16"), "scalars is float32 stored as bfl"),
        (("records", 1, "dataPath", "params_shard_0.bin"), "'params_shard_0.bin' is used twice"),
        (("records", 1, "dataPath", "../x"), "dataPath: String should match"),
        (("records", 1, "dataPath", ".."), "'..' is used twice or isn't one"),
        (("records", 1, "dataPath", "gone.bin"), "gone.bin: can't be read: No such file"),
        (("records", 1, "nbytes", 5), "params_shard_1.bin: has 4 bytes in place of 5"),
        (("records", 1, "format", "zip"), "Input should be 'raw-shard'"),
        (("records", None), "Input should be a valid"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(
    folder: Path, edit: tuple[object, ...], message: str
) -> None:
    edited(folder, *edit)
    with pytest.raises(CheckpointError, match=message) as caught:
        TensorCache(folder)
    assert str(folder) in str(caught.value)


def test_a_truncated_shard_and_a_missing_index_are_refused(folder: Path) -> None:
    shard = folder / "params_shard_0.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"params_shard_0\.bin: has 53 bytes in place of 54"):
        TensorCache(folder)
    (folder / "tensor-cache.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tensor-cache\.json: .*Invalid JSON"):
        TensorCache(folder)
    (folder / "tensor-cache.json").unlink()
    with pytest.raises(CheckpointError, match="can't be read: No such file"):
        TensorCache(folder)
