"""Files in memory: what is in it, who else sees it, and when it is a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.errors import CheckpointError
from edgec.layouts.shard_writer import TensorCacheWriter
from edgec.layouts.shards import plan_shards
from edgec.layouts.specs import TensorSpec
from edgec.runtime import pages
from edgec.runtime.bandwidth import read_rate
from edgec.runtime.pages import HUGE_PAGE, gives_huge_pages, huge_file_bytes, map_files
from edgec.runtime.tvm_runtime import array_of
from edgec.runtime.weights import MappedWeights

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (5_000_001, 3, 40_000_000)


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, int]]:
    random = np.random.default_rng(0)
    found = []
    for index, size in enumerate(SIZES):
        path = tmp_path / f"{index}.bin"
        path.write_bytes(random.bytes(size))
        found.append((path, size))
    return found


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of files that are copied, on a machine that would copy them."""
    seen: list[int] = []
    copy = pages._copy

    def counted(files: list[tuple[Path, int]]) -> dict[Path, pages.Bytes]:
        seen.append(len(files))
        return copy(files)

    monkeypatch.setattr(pages, "_copy", counted)
    monkeypatch.setattr(pages, "_WORTH_COPYING", 1 << 20)
    monkeypatch.setattr(pages, "huge_file_bytes", lambda: 0)
    monkeypatch.setattr(pages, "gives_huge_pages", lambda: True)
    monkeypatch.setattr(pages, "available_memory", lambda: 1 << 40)
    return seen


def check(files: list[tuple[Path, int]], *, resident: bool) -> None:
    found = map_files(files, resident=resident)
    for path, size in files:
        assert found[path].size == size
        assert found[path].tobytes() == path.read_bytes()
        found[path][0] ^= 1
        assert found[path][0] != path.read_bytes()[0], "the file stays as it was"


@pytest.mark.parametrize("resident", [False, True])
def test_files_are_mapped(files: list[tuple[Path, int]], resident: bool) -> None:
    check(files, resident=resident)


def test_files_that_have_no_huge_pages_are_copied_into_some(
    files: list[tuple[Path, int]], copies: list[int]
) -> None:
    check(files, resident=True)
    assert copies == [3]
    found = map_files(files, resident=True)
    assert found[files[0][0]].ctypes.data % HUGE_PAGE == 0
    assert all(content.ctypes.data % 4096 == 0 for content in found.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("available_memory", lambda: 80_000_000),  # less than twice the files
        ("available_memory", lambda: 1000),
        ("gives_huge_pages", lambda: False),
        ("_WORTH_COPYING", 1 << 30),
    ],
)
def test_files_are_not_copied(
    files: list[tuple[Path, int]],
    copies: list[int],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
) -> None:
    monkeypatch.setattr(pages, name, value)
    check(files, resident=True)
    assert copies == []


def test_files_in_huge_pages_are_not_copied(
    files: list[tuple[Path, int]], copies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    amounts = iter([0, 30_000_000])
    monkeypatch.setattr(pages, "huge_file_bytes", lambda: next(amounts))
    map_files(files, resident=True)
    assert copies == []


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.bin"):
        map_files([(tmp_path / "gone.bin", 1)], resident=True)


def test_what_the_kernel_says(tmp_path: Path) -> None:
    text = "ab-cd ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\nFilePmdMapped:     2048 kB\n"
    (tmp_path / "rollup").write_text(text)
    assert huge_file_bytes(tmp_path / "rollup") == HUGE_PAGE
    assert huge_file_bytes(tmp_path / "none") == 0
    for text, expected in (("always [madvise] never", True), ("always madvise [never]", False)):
        (tmp_path / "enabled").write_text(text)
        assert gives_huge_pages(tmp_path / "enabled") == expected
    assert not gives_huge_pages(tmp_path / "none")


@pytest.mark.parametrize("alignment", [1, 64])
def test_weights_are_used_where_they_lie(tmp_path: Path, alignment: int) -> None:
    arrays = {f"t{n}": np.arange(size, dtype=np.float16) for n, size in enumerate((3, 70, 1000, 5))}
    specs = [TensorSpec(name, a.shape, a.dtype.name, name) for name, a in arrays.items()]
    writer = TensorCacheWriter(tmp_path, plan_shards(specs, alignment=alignment), {})
    for shard in writer.shards:
        writer.write_shard(shard, (arrays[p.spec.name] for p in shard.placements))
    writer.finish()
    weights = MappedWeights(tmp_path, resident=True)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array_of(weights.tensor(name)), array)
    copied = len(arrays) - len(weights._views)
    assert copied == (0 if alignment == 64 else 3)


def test_the_rate_of_reading() -> None:
    ticks = iter([0.0, 2.0, 2.0, 3.0, 3.0, 7.0])
    rate = read_rate(2, nbytes=20 << 20, reads=3, clock=lambda: next(ticks))
    assert rate == 16 << 20, "whole pieces, in the fastest of three"
