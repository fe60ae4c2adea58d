from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from quantization_fakes import Counter, parameter, small_model

from edgec.layouts import mlc, pack, shards
from edgec.layouts.pack import pack_checkpoint
from edgec.layouts.specs import TensorSpec, nbytes, weight_bytes
from edgec.layouts.tensor_cache import TensorCache
from edgec.layouts.unpack import unpacked_rows
from edgec.parallel import Workspace
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.run import quantize_checkpoint
from edgec.quantization.schemes import SCHEMES, TensorScheme
from edgec.quantization.store import StoredTensor, StoreIndex
from edgec.quantization.tensors import QuantizedTensor
from edgec.quantization.writer import QuantizedCheckpointWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.layouts.find import Layout
    from edgec.models.parameters import Parameter


def quantized(
    folder: Path, name: str, zero_row: int | None = None
) -> tuple[list[Parameter], dict[str, TensorScheme | None]]:
    checkpoint, parameters = small_model()
    if zero_row is not None:
        checkpoint.arrays["embed.weight"][zero_row] = 0
    scheme = SCHEMES[name]
    schemes = tensor_schemes(parameters, scheme, 32)
    folder.mkdir(exist_ok=True)
    quantize_checkpoint(
        checkpoint, parameters, schemes, scheme.dtype, "rtn", folder, Counter(), threads=1
    )
    return parameters, schemes


def packed(
    folder: Path, out: Path, parameters: Sequence[Parameter], layout: Layout, threads: int = 1
) -> list[TensorSpec]:
    out.mkdir()
    progress = Counter()
    with QuantizedCheckpoint(folder) as store:
        specs = pack_checkpoint(store, parameters, out, progress, layout=layout, threads=threads)
    assert progress.done == progress.total == weight_bytes(specs)
    return specs


def digest(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", SCHEMES)
def test_the_folder_holds_the_quantized_numbers(tmp_path: Path, name: str) -> None:
    parameters, schemes = quantized(tmp_path / "q", name, zero_row=5)
    specs = packed(tmp_path / "q", tmp_path / "m", parameters, mlc)
    cache = TensorCache(tmp_path / "m")
    cache.verify()
    assert cache.names() == [spec.name for spec in specs]
    for spec in specs:
        assert cache.shape(spec.name) == spec.shape
        assert cache.dtype(spec.name) == spec.dtype
    with QuantizedCheckpoint(tmp_path / "q") as store:
        for p in parameters:
            start, stop = 1, p.shape[0] - 2
            if schemes[p.name] is None:
                expected = store.plain(p.name, start, stop).astype(np.float32)
            else:
                expected = store.quantized(p.name, start, stop).dequantize()
            found = unpacked_rows(mlc, cache, p, schemes[p.name], start, stop)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["q4f16_1", "q8f32_1", "q0f16"])
def test_bytes_depend_on_neither_threads_nor_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    parameters, _ = quantized(tmp_path / "q", name)
    monkeypatch.setattr(shards.plan_shards, "__defaults__", (1024,))
    packed(tmp_path / "q", tmp_path / "whole", parameters, mlc)
    monkeypatch.setattr(pack, "STEP", 100)
    packed(tmp_path / "q", tmp_path / "blocks", parameters, mlc, threads=3)
    assert digest(tmp_path / "whole") == digest(tmp_path / "blocks")
    assert len(digest(tmp_path / "whole")) > 3


def test_the_index_says_what_the_format_asks_for(tmp_path: Path) -> None:
    parameters, _ = quantized(tmp_path / "q", "q4f16_1")
    specs = packed(tmp_path / "q", tmp_path / "m", parameters, mlc)
    index = json.loads((tmp_path / "m" / "tensor-cache.json").read_text())
    total = weight_bytes(specs)
    weights = 50 * 64 + 40 * 64 + 40 + 64
    assert index["metadata"] == {
        "ParamSize": 6,
        "ParamBytes": total,
        "BitsPerParam": total * 8 / weights,
    }
    (shard,) = index["records"]
    raw = (tmp_path / "m" / "params_shard_0.bin").read_bytes()
    assert shard["dataPath"] == "params_shard_0.bin"
    assert shard["format"] == "raw-shard"
    # Each tensor but the last is followed by zeros up to a multiple of 64 bytes.
    assert shard["nbytes"] == len(raw) == total + 136
    assert shard["md5sum"] == hashlib.md5(raw, usedforsecurity=False).hexdigest()
    assert shard["records"][1] == {
        "name": "embed.q_scale",
        "shape": [50, 2],
        "dtype": "float16",
        "format": "raw",
        "nbytes": 200,
        "byteOffset": 1600,
    }


def test_zero_points_are_packed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = parameter("a.weight", (50, 288))
    scheme = TensorScheme(4, 32, "float16", zeros=True)
    stored = StoredTensor(
        name=p.name,
        shape=p.shape,
        dtype="float16",
        bits=4,
        group_size=32,
        method="x",
        zeros=True,
    )
    random = np.random.default_rng(0)
    tensor = QuantizedTensor(
        random.integers(-8, 8, p.shape, np.int8),
        random.standard_normal((50, 9)).astype(np.float16),
        4,
        random.integers(-8, 8, (50, 9), np.int8),
    )
    (tmp_path / "q").mkdir()
    with QuantizedCheckpointWriter(
        tmp_path / "q", StoreIndex(dtype="float16", tensors=(stored,))
    ) as writer:
        writer.write(p.name, 0, tensor, Workspace())
        writer.finish()
    monkeypatch.setattr(pack, "STEP", 100)
    specs = packed(tmp_path / "q", tmp_path / "m", [p], mlc)
    assert [spec.name for spec in specs] == ["a.q_weight", "a.q_scale", "a.q_zero"]
    cache = TensorCache(tmp_path / "m")
    values = tensor.dequantize()
    np.testing.assert_array_equal(unpacked_rows(mlc, cache, p, scheme, 0, 50), values)
    np.testing.assert_array_equal(unpacked_rows(mlc, cache, p, scheme, 17, 31), values[17:31])


def test_tensors_are_cut_into_shards_by_the_rule() -> None:
    sizes = [10, 30, 60, 45, 40, 5, 100, 99, 98, 1, 50, 49, 51, 2, 50]
    specs = [TensorSpec(f"t{size}", (size,), "int8", "t") for size in sizes]
    planned = shards.plan_shards(specs, 100, alignment=1)
    assert [shard.file for shard in planned] == [f"params_shard_{n}.bin" for n in range(9)]
    assert [[nbytes(place.spec) for place in shard.placements] for shard in planned] == [
        [60],
        [10, 30, 45],
        [100],
        [99],
        [98],
        [40, 5, 1, 50],
        [51],
        [50],
        [49, 2],
    ]
    for shard in planned:
        end = 0
        for place in shard.placements:
            assert place.offset == end
            end += nbytes(place.spec)
        assert shard.nbytes == end


def test_tensors_of_a_shard_are_aligned() -> None:
    sizes = [1, 64, 65, 63, 700, 128, 1, 1]
    specs = [TensorSpec(f"t{index}", (size,), "int8", "t") for index, size in enumerate(sizes)]
    planned = shards.plan_shards(specs, 512)
    found = {p.spec.name: p.offset for shard in planned for p in shard.placements}
    assert found == {
        "t0": 0,
        "t1": 64,
        "t2": 128,
        "t3": 256,
        "t4": 0,
        "t5": 320,
        "t6": 448,
        "t7": 0,
    }
    assert [shard.nbytes for shard in planned] == [700, 449, 1]
