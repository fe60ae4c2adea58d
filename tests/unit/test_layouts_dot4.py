"""The tiles of 16 rows, against the words of the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantization_fakes import Counter, parameter

from edgec.errors import UsageError
from edgec.layouts import dot4, mlc, pack
from edgec.layouts.dot4 import tiled
from edgec.layouts.find import find_layout, list_layouts
from edgec.layouts.parts import LIMIT, split_tables, table_parts
from edgec.layouts.specs import TensorSpec, nbytes
from edgec.layouts.tensor_cache import TensorCache
from edgec.layouts.unpack import unpacked_rows
from edgec.parallel import Workspace
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.schemes import TensorScheme
from edgec.quantization.store import StoredTensor, StoreIndex
from edgec.quantization.tensors import QuantizedTensor
from edgec.quantization.writer import QuantizedCheckpointWriter

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.models.parameters import Parameter


def random_tensor(
    rows: int, groups: int, group: int, bits: int, dtype: str, *, zeros: bool, seed: int = 0
) -> QuantizedTensor:
    random = np.random.default_rng(seed)
    end = 1 << (bits - 1)
    codes = random.integers(-end, end, (rows, groups * group)).astype(np.int8)
    scales = random.uniform(-1, 1, (rows, groups)).astype(dtype)
    scales[random.random(scales.shape) < 0.1] = 0
    points = random.integers(-end, end, scales.shape).astype(np.int8)
    return QuantizedTensor(codes, scales, bits, points if zeros else None)


@st.composite
def tensors_of_any_kind(draw: st.DrawFn) -> QuantizedTensor:
    return random_tensor(
        draw(st.integers(1, 50)),
        draw(st.integers(1, 5)),
        draw(st.sampled_from([32, 64, 96, 128])),
        draw(st.sampled_from([4, 8])),
        draw(st.sampled_from(["float16", "float32"])),
        zeros=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32)),
    )


@given(tensors_of_any_kind())
def test_unpack_is_the_exact_inverse(tensor: QuantizedTensor) -> None:
    before = replace(tensor, codes=tensor.codes.copy(), scales=tensor.scales.copy())
    packed = dot4.pack(tensor)
    found = dot4.unpack(packed["q_weight"], packed["q_scale"], tensor.bits, packed.get("q_zero"))
    rows = tensor.codes.shape[0]
    np.testing.assert_array_equal(found.codes[:rows], tensor.codes)
    np.testing.assert_array_equal(found.scales[:rows], tensor.scales)
    assert found.scales.dtype == tensor.scales.dtype
    assert (found.zeros is None) == (tensor.zeros is None)
    if tensor.zeros is not None and found.zeros is not None:
        np.testing.assert_array_equal(found.zeros[:rows], tensor.zeros)
        assert not found.zeros[rows:].any()
    np.testing.assert_array_equal(found.dequantize()[:rows], tensor.dequantize())
    assert not found.codes[rows:].any()
    assert not found.scales[rows:].any()
    np.testing.assert_array_equal(tensor.codes, before.codes)
    np.testing.assert_array_equal(tensor.scales, before.scales)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [16, 37])
def test_words_bit_by_bit(rows: int, bits: int, zeros: bool) -> None:
    """Every weight found where the definition says, by shifts of single words."""
    tensor = random_tensor(rows, 3, 32, bits, "float16", zeros=zeros)
    packed = dot4.pack(tensor)
    words, scales, points = packed["q_weight"], packed["q_scale"], packed.get("q_zero")
    tiles, middle, mask = -(-rows // 16), 1 << (bits - 1), (1 << bits) - 1
    assert words.shape == (tiles, 96 * bits // 32, 16)
    assert words.dtype == np.uint32
    assert scales.shape == (tiles, 3, 16)
    values = np.empty((rows, 96))
    for n in range(rows):
        t, r = divmod(n, 16)
        for k in range(96):
            if bits == 4:
                b, place = divmod(k, 8)
                shift = 8 * (place % 4) + 4 * (place // 4)
            else:
                b, shift = k // 4, 8 * (k % 4)
            u = int(words[t, b, r]) >> shift & mask
            z = middle
            if points is not None:
                word, shift = (r % 2, 4 * (r // 2)) if bits == 4 else (r // 4, 8 * (r % 4))
                z = int(points[t, k // 32, word]) >> shift & mask
            values[n, k] = (u - z) * float(scales[t, k // 32, r])
    np.testing.assert_array_equal(values.astype(np.float32), tensor.dequantize())


def test_lanes_of_zero_points() -> None:
    """Four bits: the two words of a group over 16 lanes, shifted by four times half the lane."""
    tensor = random_tensor(16, 2, 32, 4, "float16", zeros=True)
    words = dot4.pack(tensor)["q_zero"]
    lane = np.arange(16)
    points = np.tile(words[0, 1], 8) >> (4 * (lane // 2)) & 15
    assert tensor.zeros is not None
    np.testing.assert_array_equal(points.astype(int) - 8, tensor.zeros[:, 1])


def test_what_lies_beyond_the_last_row() -> None:
    tensor = random_tensor(3, 2, 32, 4, "float32", zeros=True)
    packed = dot4.pack(tensor)
    assert {hex(word) for word in packed["q_weight"][0, :, 3:].ravel()} == {"0x88888888"}
    assert not packed["q_scale"][0, :, 3:].any()
    # Rows 3, 5, ... in word 1 from the second nibble on, rows 4, 6, ... in word 0 from the third.
    assert (packed["q_zero"][0, :, 0] >> 8 == 0x888888).all()
    assert (packed["q_zero"][0, :, 1] >> 4 == 0x8888888).all()


NORM = np.arange(64, dtype=np.float16)
PARAMETERS = [
    parameter("embed.weight", (50, 64), "embedding"),
    parameter("norm.weight", (64,), "norm"),
    parameter("x.proj.weight", (10, 128)),
    parameter("y.proj.weight", (32, 288)),
    parameter("z.proj.weight", (8, 72)),
    replace(parameter("experts.weight", (96, 64)), decode_rows=64, matrices=3),
    # Neither experts of which only the first begins with a tile, nor what no decoding step reads.
    replace(parameter("few.weight", (48, 64)), decode_rows=16, matrices=6),
    replace(parameter("tower.weight", (32, 64)), decode_rows=0),
]
SCHEMES = {
    "embed.weight": TensorScheme(4, 32, "float16"),
    "norm.weight": None,
    "x.proj.weight": TensorScheme(8, 64, "float16"),
    "y.proj.weight": TensorScheme(4, 32, "float16", zeros=True),
    "z.proj.weight": TensorScheme(4, 24, "float16"),
    "experts.weight": TensorScheme(4, 32, "float16"),
    "few.weight": TensorScheme(4, 32, "float16"),
    "tower.weight": TensorScheme(4, 32, "float16"),
}


def test_specs_follow_the_parameters() -> None:
    assert dot4.tensors(PARAMETERS, SCHEMES, "float16") == [
        TensorSpec("embed.q_weight", (4, 8, 16), "uint32", "embed.weight", tile=16),
        TensorSpec("embed.q_scale", (4, 2, 16), "float16", "embed.weight", tile=16),
        TensorSpec("norm.weight", (64,), "float16", "norm.weight"),
        TensorSpec("x.proj.q_weight", (1, 32, 16), "uint32", "x.proj.weight", tile=16),
        TensorSpec("x.proj.q_scale", (1, 2, 16), "float16", "x.proj.weight", tile=16),
        TensorSpec("y.proj.q_weight", (2, 36, 16), "uint32", "y.proj.weight", tile=16),
        TensorSpec("y.proj.q_scale", (2, 9, 16), "float16", "y.proj.weight", tile=16),
        TensorSpec("y.proj.q_zero", (2, 9, 2), "uint32", "y.proj.weight", tile=16),
        TensorSpec("z.proj.q_weight", (8, 9), "uint32", "z.proj.weight"),
        TensorSpec("z.proj.q_scale", (8, 3), "float16", "z.proj.weight"),
        TensorSpec("experts.q_weight", (6, 8, 16), "uint32", "experts.weight", tile=16),
        TensorSpec("experts.q_scale", (6, 2, 16), "float16", "experts.weight", tile=16),
        TensorSpec("few.q_weight", (48, 8), "uint32", "few.weight"),
        TensorSpec("few.q_scale", (48, 2), "float16", "few.weight"),
        TensorSpec("tower.q_weight", (32, 8), "uint32", "tower.weight"),
        TensorSpec("tower.q_scale", (32, 2), "float16", "tower.weight"),
    ]
    shapes = {
        kind: array.shape
        for kind, array in dot4.pack(
            random_tensor(10, 2, 64, 8, "float16", zeros=True),
        ).items()
    }
    assert shapes == {"q_weight": (1, 32, 16), "q_scale": (1, 2, 16), "q_zero": (1, 2, 4)}


def quantized(folder: Path) -> dict[str, QuantizedTensor]:
    """A quantized checkpoint of ``PARAMETERS`` with random numbers."""
    folder.mkdir()
    stored, tensors = [], {}
    for p in PARAMETERS:
        scheme = SCHEMES[p.name]
        settings: dict[str, Any] = {}
        if scheme is not None:
            settings = {"bits": scheme.bits, "group_size": scheme.group_size, "method": "x"}
            settings["zeros"] = scheme.zeros
            groups = p.shape[1] // scheme.group_size
            tensors[p.name] = random_tensor(
                *(p.shape[0], groups, scheme.group_size, scheme.bits, scheme.scale_dtype),
                zeros=scheme.zeros,
            )
        stored.append(StoredTensor(name=p.name, shape=p.shape, dtype="float16", **settings))
    with QuantizedCheckpointWriter(
        folder, StoreIndex(dtype="float16", tensors=tuple(stored))
    ) as writer:
        for p in PARAMETERS:
            if p.name in tensors:
                writer.write(p.name, 0, tensors[p.name], Workspace())
            else:
                writer.write_plain(p.name, 0, NORM)
        writer.finish()
    return tensors


def packed(source: Path, out: Path, threads: int = 1, **limits: int) -> list[TensorSpec]:
    out.mkdir()
    with QuantizedCheckpoint(source) as store:
        return pack.pack_checkpoint(
            store, PARAMETERS, out, Counter(), layout=dot4, threads=threads, limits=limits
        )


def rows_of(cache: TensorCache, p: Parameter, start: int, stop: int) -> np.ndarray:
    return unpacked_rows(dot4, cache, p, SCHEMES[p.name], start, stop)


def test_a_folder_holds_the_quantized_numbers(tmp_path: Path) -> None:
    tensors = quantized(tmp_path / "q")
    specs = packed(tmp_path / "q", tmp_path / "m")
    cache = TensorCache(tmp_path / "m")
    cache.verify()
    for spec in specs:
        assert (cache.shape(spec.name), cache.dtype(spec.name)) == (spec.shape, spec.dtype)
    for p in PARAMETERS:
        if p.name not in tensors:
            np.testing.assert_array_equal(rows_of(cache, p, 3, 60), NORM[3:60])
            continue
        values = tensors[p.name].dequantize()
        for start, stop in ((0, p.shape[0]), (1, p.shape[0] - 1), (3, 4)):
            np.testing.assert_array_equal(rows_of(cache, p, start, stop), values[start:stop])
        if tiled(p, SCHEMES[p.name]):
            module = p.name.removesuffix(".weight")
            for kind, array in dot4.pack(tensors[p.name]).items():
                np.testing.assert_array_equal(cache.array(f"{module}.{kind}"), array)


def test_bytes_depend_on_neither_threads_nor_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized(tmp_path / "q")
    packed(tmp_path / "q", tmp_path / "whole")
    monkeypatch.setattr(pack, "STEP", 100)
    packed(tmp_path / "q", tmp_path / "blocks", threads=3)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "blocks" / path.name).read_bytes() == path.read_bytes()


def test_tables_are_cut_between_tiles(tmp_path: Path) -> None:
    """50 rows are 4 tiles of 16 rows times 8 words."""
    tensors = quantized(tmp_path / "q")
    whole = dot4.tensors(PARAMETERS, SCHEMES, "float16")
    parts = table_parts(whole, PARAMETERS, {LIMIT: 3 * 512})
    assert parts == {"embed.weight": (32, 18)}
    stored = [spec for spec in split_tables(whole, parts) if spec.parameter == "embed.weight"]
    assert [(spec.name, spec.shape, spec.first_row) for spec in stored] == [
        ("embed.0.q_weight", (2, 8, 16), 0),
        ("embed.1.q_weight", (2, 8, 16), 32),
        ("embed.0.q_scale", (2, 2, 16), 0),
        ("embed.1.q_scale", (2, 2, 16), 32),
    ]
    assert max(map(nbytes, stored)) <= 3 * 512
    assert packed(tmp_path / "q", tmp_path / "m", **{LIMIT: 3 * 512}) == split_tables(whole, parts)
    cache, table = TensorCache(tmp_path / "m"), tensors["embed.weight"].dequantize()
    for start, stop in ((0, 50), (17, 49), (31, 33), (33, 34)):
        np.testing.assert_array_equal(rows_of(cache, PARAMETERS[0], start, stop), table[start:stop])


def test_layouts_are_found_by_name() -> None:
    assert list_layouts() == ["dot4", "mlc"]
    assert find_layout("dot4") is dot4
    assert find_layout("mlc") is mlc
    with pytest.raises(UsageError, match=r"there is no layout 'dot8'.*dot4"):
        find_layout("dot8")
