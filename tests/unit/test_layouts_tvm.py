"""Our weight folders against TVM's own dumper and loader."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from edgec.layouts.shard_writer import TensorCacheWriter
from edgec.layouts.shards import plan_shards
from edgec.layouts.specs import TensorSpec
from edgec.layouts.tensor_cache import TensorCache

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[Any]


pytestmark = pytest.mark.slow

MIB = 1 << 20


def arrays() -> dict[str, Array]:
    """Tensors around the borders of the sharding rule, in several types."""
    sizes = [3, 5 * MIB, 10 * MIB, 16 * MIB, 17 * MIB, 1, 40 * MIB, 15 * MIB, 15 * MIB, 2 * MIB - 8]
    sizes += [8, 6, 16 * MIB - 2, 32 * MIB, 16 * MIB, 2]
    random = np.random.default_rng(0)
    types = ["uint32", "float16", "float32", "int8"]
    made = {}
    for number, size in enumerate(sizes):
        dtype = np.dtype(types[number % len(types)])
        count = max(1, size // dtype.itemsize)
        raw = random.integers(0, 60, count * dtype.itemsize, np.uint8)
        made[f"layers.{number}.weight"] = raw.view(dtype)
    made["matrix"] = np.arange(6, dtype=np.uint32).reshape(2, 3)
    return made


@pytest.fixture(scope="module", params=[1, 64], ids=["dense", "aligned"])
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("ours"), request.param)


def written(folder: Path, alignment: int) -> Path:
    made = arrays()
    specs = [TensorSpec(name, array.shape, array.dtype.name, name) for name, array in made.items()]
    shards = plan_shards(specs, alignment=alignment)
    writer = TensorCacheWriter(folder, shards, {"ParamSize": len(specs)})
    for shard in writer.shards:
        writer.write_shard(shard, (made[p.spec.name] for p in shard.placements))
    writer.finish()
    return folder


def test_without_alignment_the_folder_is_that_of_tvms_dumper(tmp_path: Path) -> None:
    tvmjs = pytest.importorskip("tvm.contrib.tvmjs")
    (tmp_path / "ours").mkdir()
    ours, theirs = written(tmp_path / "ours", 1), tmp_path / "theirs"
    made = arrays()
    tvmjs.dump_tensor_cache(
        made,
        str(theirs),
        encode_format="raw",
        meta_data={"ParamSize": len(made)},
        show_progress=False,
    )
    index, expected = (
        json.loads((folder / "tensor-cache.json").read_text()) for folder in (ours, theirs)
    )
    assert index == expected
    assert len(index["records"]) > 5
    for shard in index["records"]:
        file = shard["dataPath"]
        assert (ours / file).read_bytes() == (theirs / file).read_bytes()


def test_tvms_runtime_reads_the_same_arrays(ours: Path) -> None:
    tvm = pytest.importorskip("tvm")
    load = tvm.get_global_func("vm.builtin.tensor_cache.load")
    get = tvm.get_global_func("vm.builtin.tensor_cache.get")
    clear = tvm.get_global_func("vm.builtin.tensor_cache.clear")
    load(str(ours), tvm.cpu().dlpack_device_type(), 0)
    try:
        cache = TensorCache(ours)
        for name, array in arrays().items():
            np.testing.assert_array_equal(get(name).numpy(), array)
            np.testing.assert_array_equal(cache.array(name), array)
            assert get(name).numpy().dtype == array.dtype
    finally:
        clear()
