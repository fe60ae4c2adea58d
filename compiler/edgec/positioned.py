"""Read and write byte ranges of files whose size is known beforehand, from any thread."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.errors import BuildError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    from typing_extensions import Self

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_RESERVATION = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class PositionedFile:
    """A file that is read or written at given offsets.

    The calls carry their own offset, so that several threads can share one object. It is a
    context manager; the file is closed at the end of the block.

    Attributes:
        path: where the file lies.
        nbytes: its size.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.nbytes = os.fstat(descriptor).st_size
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> PositionedFile:
        """Open an existing file for reading.

        Raises:
            CheckpointError: it can't be opened.
        """
        try:
            return cls(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise CheckpointError(
                f"can't be read: {error.strerror}", where=str(path), remedy="restore the file"
            ) from error

    @classmethod
    def create(cls, path: Path, nbytes: int) -> PositionedFile:
        """Make a new file of ``nbytes`` and reserve the space, so that a full disk shows now.

        Raises:
            BuildError: there is no room for it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            with _full_disk(path, nbytes):
                _reserve(descriptor, nbytes)
            return cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, data: npt.NDArray[Any] | bytes, offset: int) -> None:
        """Write all of ``data`` (bytes or a C-contiguous array) at ``offset``.

        Raises:
            BuildError: the disk is full.
        """
        view = memoryview(data if isinstance(data, bytes) else as_bytes(data).data)
        with _full_disk(self.path, self.nbytes):
            while view:
                count = os.pwrite(self._descriptor, view, offset)
                view = view[count:]
                offset += count

    def read_into(self, out: npt.NDArray[Any], offset: int) -> None:
        """Fill ``out`` (C-contiguous, any dtype) with the bytes at ``offset``.

        Raises:
            CheckpointError: the file ends before ``out`` is full.
        """
        view = as_bytes(out).data
        while view:
            count = os.preadv(self._descriptor, [view], offset)
            if count == 0:
                raise CheckpointError(
                    f"ends at byte {offset}, {len(view)} bytes too early",
                    where=str(self.path),
                    remedy="restore the file or make it again",
                )
            view = view[count:]
            offset += count

    def fileno(self) -> int:
        """The file's descriptor, while it is open."""
        return self._descriptor

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The memory of a C-contiguous array as a flat array of bytes, without a copy."""
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8)


def _reserve(descriptor: int, nbytes: int) -> None:
    if hasattr(os, "posix_fallocate") and nbytes:
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
        except OSError as error:
            if error.errno not in _NO_RESERVATION:
                raise
        else:
            return
    os.ftruncate(descriptor, nbytes)


@contextmanager
def _full_disk(path: Path, nbytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise BuildError(
            f"no room for its {nbytes / 2**20:.1f} MiB: {error.strerror}",
            where=str(path),
            remedy="free some space or choose another folder",
        ) from error
