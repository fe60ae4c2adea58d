"""One safetensors file: exact values by row ranges, and a clear error for every kind of damage."""

from __future__ import annotations

import json
import os
import sys
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.checkpoints.checkpoint import TensorInfo
from edgec.checkpoints.safetensors_file import SafetensorsFile
from edgec.checkpoints.safetensors_header import parse_header
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def write(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, np.ndarray]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True))
    result = {}
    for name in names:
        stored = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
        shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
        count = int(np.prod(shape))
        size = count * stored.itemsize
        # Random bytes: every bit pattern, also infinities, NaNs and subnormal numbers.
        raw = draw(st.binary(min_size=size, max_size=size))
        result[name] = np.frombuffer(raw, stored).reshape(shape)
    return result


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), nan)
    np.testing.assert_array_equal(
        np.where(nan, 0, actual).view(np.uint32), np.where(nan, 0, expected).view(np.uint32)
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), written=tensors())
def test_any_rows_of_any_dtype_equal_the_reference(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, written: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("st") / "model.safetensors"
    path.write_bytes(safetensors.numpy.save(written, metadata={"format": "pt"}))
    file = SafetensorsFile(path)
    assert sorted(file.names()) == sorted(written)
    for name, expected in written.items():
        info = file.info(name)
        assert info.shape == expected.shape
        assert info.nbytes == expected.nbytes
        assert DTYPES[info.dtype] == expected.dtype
        start = data.draw(st.integers(0, expected.shape[0]))
        stop = data.draw(st.integers(start, expected.shape[0]))
        with np.errstate(all="ignore"):
            assert_same_bits(file.rows(name, start, stop), expected[start:stop].astype(np.float32))


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_tensors_larger_than_one_piece(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((1001, 333), np.float32).astype(DTYPES[dtype])
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": expected, "x": expected[:7].copy()}))
    file = SafetensorsFile(path)
    assert_same_bits(file.rows("w", 0, 1001), expected.astype(np.float32))
    assert_same_bits(file.rows("w", 17, 990), expected[17:990].astype(np.float32))
    assert_same_bits(file.rows("x", 3, 7), expected[3:7].astype(np.float32))


def test_rows_into_writes_into_the_given_buffer_alone(tmp_path: Path) -> None:
    expected = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": expected}))
    buffer = np.full((4, 3), -1, np.float32)
    SafetensorsFile(path).rows_into("w", 1, 3, buffer[1:3])
    np.testing.assert_array_equal(buffer[1:3], expected[1:3])
    assert (buffer[[0, 3]] == -1).all()


@pytest.mark.parametrize(
    ("start", "stop", "out"),
    [
        (0, 5, np.empty((5, 3), np.float32)),
        (-1, 2, np.empty((3, 3), np.float32)),
        (2, 1, np.empty((0, 3), np.float32)),
        (0, 2, np.empty((2, 4), np.float32)),
        (0, 2, np.empty((2, 3), np.float64)),
        (0, 2, np.empty((3, 2), np.float32).T),
    ],
)
def test_requests_that_break_the_contract_are_assertions(
    tmp_path: Path, start: int, stop: int, out: np.ndarray
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": np.zeros((4, 3), np.float32)}))
    with pytest.raises(AssertionError):
        SafetensorsFile(path).rows_into("w", start, stop, out)


def test_double_precision_beyond_float32_becomes_infinite_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": np.array([1e300, 0.1, -1e300])}))
    values = SafetensorsFile(path).rows("w", 0, 3)
    np.testing.assert_array_equal(values, np.array([np.inf, np.float32(0.1), -np.inf]))
    assert not recwarn.list


def test_threads_read_the_same_file_at_once(tmp_path: Path) -> None:
    expected = np.random.default_rng(1).standard_normal((400, 500)).astype(np.float32)
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": expected}))
    file = SafetensorsFile(path)
    wrong: list[int] = []

    def read(first: int) -> None:
        wrong.extend(
            row
            for row in range(first, 400, 4)
            if not np.array_equal(file.rows("w", row, row + 1), expected[row : row + 1])
        )

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_info_of_dtypes_that_are_not_floats(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.safetensors",
        {"n": entry("I64", [], 0, 8), "f": entry("F4", [4], 8, 10)},
        bytes(10),
    )
    file = SafetensorsFile(path)
    assert file.info("n") == TensorInfo("n", (), "I64", "m.safetensors", 8)
    with pytest.raises(CheckpointError, match=r"tensor f: its dtype is F4; edgec reads F64, F32"):
        file.rows("f", 0, 4)
    with pytest.raises(CheckpointError, match="tensor absent is not in this file"):
        file.rows("absent", 0, 1)


GOOD = entry("F32", [2], 0, 8)
DAMAGED: list[tuple[str, object, bytes, str]] = [
    ("not json", b"{]", b"", "not valid JSON"),
    ("not an object", [], b"", "JSON but not an object"),
    ("not utf-8", b'{"\xff": 1}', b"", r"not UTF-8 text \(byte 2\)"),
    ("deep nesting", b'{"a":' + b"[" * 100_000, b"", "not valid JSON"),
    ("an endless number", b'{"a":' + b"1" * 10_000 + b"}", b"", "header"),
    ("duplicate", b'{"a": 1, "a": 2}', b"", "the name 'a' stands in it twice"),
    ("metadata", {"__metadata__": {"a": 1}}, b"", "__metadata__ is not a map"),
    ("metadata list", {"__metadata__": []}, b"", "__metadata__ is not a map"),
    ("entry", {"a": 5}, b"", "tensor a: its entry"),
    ("no dtype", {"a": {"shape": [], "data_offsets": [0, 0]}}, b"", "tensor a: its entry"),
    ("unknown dtype", {"a": entry("F31", [2], 0, 8)}, bytes(8), "tensor a: unknown dtype 'F31'"),
    ("dtype list", {"a": entry(["F32"], [2], 0, 8)}, bytes(8), "tensor a: unknown dtype"),
    ("negative axis", {"a": entry("F32", [-2], 0, 8)}, bytes(8), r"tensor a: shape \[-2\] is not"),
    ("float axis", {"a": entry("F32", [2.0], 0, 8)}, bytes(8), "tensor a: shape"),
    ("bool axis", {"a": entry("F32", [True], 0, 4)}, bytes(4), "tensor a: shape"),
    ("shape string", {"a": entry("F32", "22", 0, 8)}, bytes(8), "tensor a: shape"),
    ("too many axes", {"a": entry("F32", [1] * 33, 0, 4)}, bytes(4), "up to 32 sizes"),
    ("million axes", {"a": entry("F32", [1] * 10**6, 0, 4)}, bytes(4), "up to 32 sizes"),
    ("huge", {"a": entry("F32", [1 << 40, 1 << 40], 0, 8)}, bytes(8), "larger than any memory"),
    ("huge axis", {"a": entry("F32", [1 << 70], 0, 8)}, bytes(8), "tensor a: shape"),
    ("huge empty", {"a": entry("F32", [1 << 40, 0, 1 << 40], 0, 0)}, b"", "larger than any"),
    ("wraps to 8 bytes", {"a": entry("U8", [(1 << 61) + 1, 8], 0, 8)}, bytes(8), "larger than"),
    ("negative offset", {"a": entry("F32", [2], -8, 0)}, bytes(8), "tensor a: data_offsets"),
    ("reversed", {"a": entry("F32", [2], 8, 0)}, bytes(8), "tensor a: data_offsets"),
    ("one offset", {"a": entry("F32", [2], 0)}, bytes(8), "tensor a: data_offsets"),
    ("size", {"a": entry("F32", [3], 0, 8)}, bytes(8), r"shape \[3\] of F32 takes 12 bytes .* 8"),
    ("half byte", {"a": entry("F4", [3], 0, 2)}, bytes(2), "takes 1.5 bytes"),
    ("overlap", {"a": GOOD, "b": entry("F32", [2], 4, 12)}, bytes(12), "b: .* overlaps .* a by 4"),
    ("same place", {"a": GOOD, "b": GOOD}, bytes(8), "overlaps that of a"),
    ("gap", {"a": GOOD, "b": entry("F32", [1], 12, 16)}, bytes(16), "tensor b: 4 bytes between a"),
    ("gap at the start", {"a": entry("F32", [1], 4, 8)}, bytes(8), "between the header and it"),
    ("data cut off", {"a": GOOD}, bytes(7), r"has 76 bytes but its header promises 77"),
    ("beyond the file", {"a": entry("U8", [10**18], 0, 10**18)}, b"", "header promises 1,000,000,"),
    ("data too long", {"a": GOOD}, bytes(9), "has 78 bytes but its header accounts for 77 only"),
    ("empty name", {"": GOOD}, bytes(8), "a tensor is called ''; names are 1 to 1024 printable"),
    ("long name", {"n" * 1025: GOOD}, bytes(8), "names are 1 to 1024 printable"),
    ("escape in a name", {"a\x1b[2J": GOOD}, bytes(8), r"called 'a\\x1b\[2J'"),
    ("surrogate in a name", b'{"\\ud800": 1}', b"", r"called '\\ud800'"),
]


@pytest.mark.parametrize(
    ("header", "data", "message"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED]
)
def test_damaged_headers(tmp_path: Path, header: object, data: bytes, message: str) -> None:
    path = write(tmp_path / "model.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        SafetensorsFile(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert len(str(caught.value)) < 600
    # What is printed can be encoded and does not steer a terminal.
    assert str(caught.value).encode().decode().isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes, too few"),
        (b"\x02\0\0\0\0\0\0", "has 7 bytes, too few"),
        (b"\x02\0\0\0\0\0\0\0", "has 8 bytes but its header alone promises 10"),
        (b"\x09\0\0\0\0\0\0\0{}      ", "has 16 bytes but its header alone promises 17"),
        (b"\xff" * 16, "more than the 100,000,000 the format allows: this is not a safetensors"),
        (b"PK\x03\x04" + bytes(4) + b"{}", "header alone promises"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "Git LFS pointer.*lfs pull",
        ),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        SafetensorsFile(path)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        SafetensorsFile(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="is not a file"):
        SafetensorsFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is not a file"):
        SafetensorsFile(tmp_path / "pipe")


def test_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": np.zeros((100, 4), np.float32)}))
    file = SafetensorsFile(path)
    os.truncate(path, 500)
    with pytest.raises(CheckpointError, match="ended at byte 500 though it had"):
        file.rows("w", 0, 100)


def test_failed_opens_leave_no_descriptor(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", [], b"")
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(CheckpointError):
            SafetensorsFile(path)
    assert len(os.listdir("/dev/fd")) == before


def test_dropped_files_are_closed(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", {})
    before = len(os.listdir("/dev/fd"))
    file = SafetensorsFile(path)
    assert len(os.listdir("/dev/fd")) == before + 1
    del file
    assert len(os.listdir("/dev/fd")) == before


def test_memory_stays_small_whatever_a_header_promises(tmp_path: Path) -> None:
    huge = 10**18
    path = write(tmp_path / "a.safetensors", {"a": entry("U8", [huge], 0, huge)})
    sparse = write(tmp_path / "b.safetensors", {"a": entry("F32", [1 << 28], 0, 1 << 30)})
    os.truncate(sparse, os.path.getsize(sparse) + (1 << 30))
    out = np.empty(1 << 20, np.float32)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="promises"):
            SafetensorsFile(path)
        SafetensorsFile(sparse).rows_into("a", (1 << 28) - (1 << 20), 1 << 28, out)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert not out.any()


def test_header_with_too_many_values_is_refused_before_it_is_parsed() -> None:
    raw = b'{"a":[' + b"[]," * 8_000_000 + b"[]]}"
    with pytest.raises(CheckpointError, match="more than 8,000,000 values"):
        parse_header(raw, len(raw) + 8, "f")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F4", "I64", "F99"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 64), max_size=3) | json_values,
    },
)


@settings(max_examples=100, deadline=None)
@given(
    header=st.dictionaries(st.text(max_size=4), entries | json_values, max_size=3),
    size=st.integers(0, 80),
)
def test_any_json_header_is_parsed_or_refused(header: dict[str, Any], size: int) -> None:
    raw = json.dumps(header).encode()
    try:
        parsed = parse_header(raw, 8 + len(raw) + size, "f")
    except CheckpointError:
        return
    assert sum(item.end - item.begin for item in parsed.values()) == size


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=60))
def test_any_bytes_as_header_are_parsed_or_refused(raw: bytes) -> None:
    with pytest.raises(CheckpointError):
        parse_header(raw + b"\x00", len(raw) + 9, "f")


@settings(max_examples=300, deadline=None)
@given(data=st.data(), written=tensors())
def test_mutated_files_are_never_accepted_where_the_reference_refuses(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, written: dict[str, np.ndarray]
) -> None:
    content = bytearray(safetensors.numpy.save(written))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, min(len(content) - 1, 200)))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            del content[place : place + data.draw(st.integers(1, 4))]
        if not content:
            break
    path = tmp_path_factory.mktemp("st") / "model.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
        for name in file.names():
            info = file.info(name)
            if info.dtype in DTYPES and info.shape:
                file.rows(name, 0, info.shape[0])
    except CheckpointError:
        return
    # Raises if the reference refuses what we accepted.
    deserialize: Any = safetensors.deserialize
    reference = {name: tuple(view["shape"]) for name, view in deserialize(bytes(content))}
    assert reference == {name: file.info(name).shape for name in file.names()}


def test_recursion_limit_is_not_reached_by_error_messages() -> None:
    depth = sys.getrecursionlimit() // 2
    raw = b'{"a":{"dtype":' + b"[" * depth + b"]" * depth + b',"shape":[],"data_offsets":[0,0]}}'
    with pytest.raises(CheckpointError):
        parse_header(raw, len(raw) + 8, "f")
