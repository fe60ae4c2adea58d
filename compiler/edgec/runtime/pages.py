"""Files in memory, for weights that a processor reads whole for every token.

Reading through huge pages is a fifth faster than through pages of 4 KiB (measured in
``docs/decisions/0023-weights-in-memory.md``). There are two ways to them:

- The kernel keeps the files themselves in huge pages. It does so on some file systems when it is asked
  to before it reads a file from the disk. Nothing is copied, and processes share the memory.
- The files are copied into memory of this process. That takes as much memory again as the cache of
  the files, which the system gives back whenever it needs it.

The first is always tried; the second follows where it had no success and there is memory enough.
"""

from __future__ import annotations

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.positioned import PositionedFile
from edgec.runtime.limits import available_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

HUGE_PAGE = 2 << 20
"""Bytes, on x86-64 and on Arm with pages of 4 KiB."""
_WORTH_COPYING = 64 << 20
"""Bytes: less than that mostly stays in the processor's cache."""
_SPARE = 2.0
"""So many times the size of the files has to be available before they are copied."""
_CHUNK = 16 << 20
_READERS = 4
# Of <linux/mman.h>; Python's mmap knows them only from some version on.
_MADV_HUGEPAGE = 14
_MADV_POPULATE_READ = 22
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ROLLUP = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True)
class _Chunk:
    """A piece of a file and where it goes."""

    file: PositionedFile
    offset: int
    target: Bytes


def map_files(files: Sequence[tuple[Path, int]], *, resident: bool) -> dict[Path, Bytes]:
    """The contents of files, in memory that may be written to; nothing reaches the files.

    Args:
        files: paths and sizes in bytes.
        resident: have all of it in memory at once if there is room, in huge pages if possible.

    Raises:
        CheckpointError: a file can't be read.
    """
    total = sum(nbytes for _, nbytes in files)
    room = available_memory()
    if not resident or total > room:
        return {path: _map(path, nbytes, populate=False) for path, nbytes in files}
    before = huge_file_bytes()
    mapped = {path: _map(path, nbytes, populate=True) for path, nbytes in files}
    in_huge_pages = huge_file_bytes() - before
    if (
        total >= _WORTH_COPYING
        and 2 * in_huge_pages < total
        and _SPARE * total <= room
        and gives_huge_pages()
    ):
        mapped.clear()  # the pages of the files needn't count twice
        return _copy(files)
    return mapped


def huge_file_bytes(rollup: Path = _ROLLUP) -> int:
    """Bytes of files that this process has mapped in huge pages; 0 where the kernel doesn't tell."""
    with suppress(OSError, ValueError):
        for line in rollup.read_text().splitlines():
            if line.startswith("FilePmdMapped:"):
                return int(line.split()[1]) << 10
    return 0


def gives_huge_pages(enabled: Path = _ENABLED) -> bool:
    """Whether the kernel gives huge pages to memory that asks for them."""
    try:
        return "[never]" not in enabled.read_text()
    except OSError:
        return False


def _map(path: Path, nbytes: int, *, populate: bool) -> Bytes:
    """A file, mapped copy-on-write: TVM takes writable memory only, but nothing writes to weights."""
    with PositionedFile.open(path) as file:
        mapped = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_COPY)
    if populate and hasattr(mapped, "madvise"):
        # Kernels and file systems that know neither page in what is read, when it is.
        for advice in (_MADV_HUGEPAGE, _MADV_POPULATE_READ):
            with suppress(OSError):
                mapped.madvise(advice)
    return np.frombuffer(mapped, np.uint8)


def _copy(files: Sequence[tuple[Path, int]]) -> dict[Path, Bytes]:
    """Files in memory of this process, in huge pages, read by several threads."""
    sizes = [-(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE for _, nbytes in files]
    memory = mmap.mmap(-1, sum(sizes) + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(_MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % HUGE_PAGE
    copies: dict[Path, Bytes] = {}
    opened = []
    chunks = []
    try:
        for (path, nbytes), size in zip(files, sizes, strict=True):
            opened.append(PositionedFile.open(path))
            copies[path] = copy = whole[start : start + nbytes]
            chunks += [
                _Chunk(opened[-1], offset, copy[offset : offset + _CHUNK])
                for offset in range(0, nbytes, _CHUNK)
            ]
            start += size
        with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda chunk: chunk.file.read_into(chunk.target, chunk.offset), chunks))
    finally:
        for file in opened:
            file.close()
    return copies
