"""TVM's blob: the modules of a library that aren't host machine code, and who imports whom.

The format, all integers little-endian: ``u64`` size of what follows; the import tree in CSR form,
a vector of row pointers and a vector of children; then every module in order, the root first:
its kind, and its bytes unless the kind is ``_lib``, which stands for the host code of the library
that the blob lies in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from edgec.libraries.cursor import Cursor, damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST_CODE = "_lib"
BYTECODE = "relax.VMExecutable"
_SIZE_FIELD = 8


@dataclass(frozen=True)
class BlobModule:
    """One module.

    Attributes:
        kind: TVM's name of its loader, such as ``"relax.VMExecutable"``, ``"opencl"``, ``"_lib"``.
        data: what that loader reads; None for ``"_lib"`` alone.
    """

    kind: str
    data: bytes | None

    def __post_init__(self) -> None:
        assert (self.data is None) == (self.kind == HOST_CODE), self.kind


@dataclass(frozen=True)
class Blob:
    """All modules of a library.

    Attributes:
        modules: the root comes first.
        row_ptr: module i imports ``children[row_ptr[i]:row_ptr[i + 1]]``; one entry more than
            there are modules.
        children: indices into ``modules``.
    """

    modules: tuple[BlobModule, ...]
    row_ptr: tuple[int, ...]
    children: tuple[int, ...]

    @staticmethod
    def parse(data: bytes | memoryview, where: str = "the library's blob") -> Blob:
        """Read a blob.

        Args:
            data: begins with the blob; what follows it is ignored, as TVM does.
            where: names the blob in error messages.

        Raises:
            VerificationError: it is damaged.
        """
        cursor = Cursor(Cursor(data, where).view(blob_size(data, where), "the blob"), where)
        cursor.u64("the blob's size")
        row_ptr = cursor.u64s("the import tree")
        children = cursor.u64s("the import tree")
        if not row_ptr:
            raise damaged("the import tree is empty", where)
        modules = tuple(_module(cursor) for _ in row_ptr[1:])
        cursor.finish("the last module of the blob")
        _check_tree(row_ptr, children, where)
        return Blob(modules, row_ptr, children)

    def to_bytes(self) -> bytes:
        """The inverse of :meth:`parse`."""
        parts = [_vector(self.row_ptr), _vector(self.children)]
        for module in self.modules:
            parts.append(sized(module.kind.encode()))
            if module.data is not None:
                parts.append(sized(module.data))
        body = b"".join(parts)
        return struct.pack("<Q", len(body)) + body

    def of_kind(self, kind: str) -> tuple[BlobModule, ...]:
        """The modules of one kind, in order."""
        return tuple(module for module in self.modules if module.kind == kind)

    def replace(self, old: BlobModule, new: BlobModule) -> Blob:
        """The same blob with another module in the place of one of its own."""
        index = self.modules.index(old)
        return replace(self, modules=(*self.modules[:index], new, *self.modules[index + 1 :]))


def blob_size(data: bytes | memoryview, where: str = "the library's blob") -> int:
    """The size in bytes of the blob that ``data`` begins with, its size field included.

    Raises:
        VerificationError: there are fewer than eight bytes.
    """
    return _SIZE_FIELD + Cursor(data, where).u64("the blob's size")


def sized(data: bytes) -> bytes:
    """A string as TVM's streams write it: its length (8 bytes), then its bytes."""
    return struct.pack("<Q", len(data)) + data


def _vector(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values) + 1}Q", len(values), *values)


def _module(cursor: Cursor) -> BlobModule:
    kind = cursor.text("a module's kind")
    return BlobModule(kind, None if kind == HOST_CODE else cursor.sized(f"the {kind} module"))


def _check_tree(row_ptr: Sequence[int], children: Sequence[int], where: str) -> None:
    rises = all(low <= high for low, high in pairwise(row_ptr))
    if row_ptr[0] != 0 or row_ptr[-1] != len(children) or not rises:
        raise damaged("the import tree's rows don't fit its children", where)
    if any(child >= len(row_ptr) - 1 for child in children):
        raise damaged("the import tree names a module that isn't there", where)
