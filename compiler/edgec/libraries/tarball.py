"""Tars of object files: written so that equal members give equal bytes, read with suspicion.

Written is POSIX ustar without compression, whose output would depend on the version of zlib. Read
are ustar, GNU's and pax's ways of writing long names, and gzip around any of them.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from edgec.errors import BuildError
from edgec.libraries.cursor import Cursor, damaged, decode
from edgec.libraries.members import Member

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 512
# GNU tar reads and writes 20 blocks at a time, and warns of files that end elsewhere.
_RECORD = 20 * _BLOCK
_GZIP = b"\x1f\x8b"
_LONGEST_NAME = 100
_LONGEST_NUMBER = 10
_LARGEST_FILE = 8**11 - 1
# A bound on what a small hostile file can unpack to, far above any library without weights.
_LARGEST_UNPACKED = 4 << 30
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
_KIND, _MAGIC, _PREFIX = slice(156, 157), slice(257, 263), slice(345, 500)
_USTAR = b"ustar\0"
_FILES, _FOLDER, _LONG_NAME, _PAX, _PAX_FOR_ALL = (b"0", b"\0", b"7"), b"5", b"L", b"x", b"g"


def write_tar(members: Sequence[Member]) -> bytes:
    """A tar of files in the order given, with nothing in it that their names and bytes don't say.

    Args:
        members: their names are ASCII, of 100 characters at most, each one there once.

    Raises:
        BuildError: a name can't be written.
    """
    names = [name for name, _ in members]
    for name, data in members:
        if not name.isascii() or not 0 < len(name) <= _LONGEST_NAME or "/" in name or "\0" in name:
            raise BuildError(f"the tar can't hold a file of the name {name!r}", where="tar")
        if names.count(name) > 1 or len(data) > _LARGEST_FILE:
            raise BuildError(f"the tar can't hold the file {name} twice, or so large", where="tar")
    blocks = b"".join(_header(name, len(data)) + _padded(data, _BLOCK) for name, data in members)
    return _padded(blocks + bytes(2 * _BLOCK), _RECORD)


def read_tar(data: bytes, where: str) -> tuple[Member, ...]:
    """The files of a tar, in order.

    Args:
        data: all of it, compressed by gzip or not.
        where: names it in error messages.

    Raises:
        VerificationError: it is damaged, or holds links, devices or names with folders.
    """
    if data.startswith(_GZIP):
        data = _unpacked(data, where)
    cursor = Cursor(data, where)
    members: list[Member] = []
    long_name = b""
    while cursor.left:
        header = bytes(cursor.view(_BLOCK, "a tar header"))
        if not any(header):
            break
        kind, size = header[_KIND], _checked_size(header, cursor)
        body = bytes(cursor.view(size, "a file of the tar"))
        cursor.view(-size % _BLOCK, "a file of the tar")
        if kind == _LONG_NAME:
            long_name = body.rstrip(b"\0")
        elif kind == _PAX:
            long_name = _pax_path(body, where) or long_name
        elif kind in _FILES:
            members.append(Member(_file_name(long_name or _short_name(header), where), body))
            long_name = b""
        elif kind not in {_FOLDER, _PAX_FOR_ALL}:
            raise damaged(f"an entry of the tar is neither file nor folder but {kind!r}", where)
    if not members:
        raise damaged("this is neither a library nor a tar with files in it", where)
    return tuple(members)


def _header(name: str, size: int) -> bytes:
    blank = b" " * 8
    # mode, owner, group, size, time, checksum (blank while it is computed), kind
    fields = b"%07o\0%07o\0%07o\0%011o\0%011o\0%b0" % (0o644, 0, 0, size, 0, blank)
    header = (name.encode().ljust(_LONGEST_NAME, b"\0") + fields).ljust(257, b"\0")
    header = (header + _USTAR + b"00").ljust(_BLOCK, b"\0")
    return header.replace(blank, b"%06o\0 " % sum(header), 1)


def _padded(data: bytes, block: int) -> bytes:
    return data + bytes(-len(data) % block)


def _unpacked(data: bytes, where: str) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(data, _LARGEST_UNPACKED)
    except zlib.error as error:
        raise damaged(f"it can't be unpacked: {error}", where) from error
    if not unpacker.eof:
        raise damaged("it ends too early, or unpacks to more than 4 GiB", where)
    return unpacked


def _checked_size(header: bytes, cursor: Cursor) -> int:
    """The size field, after a look at the checksum over all fields."""
    blank = header[: _CHECKSUM.start] + b" " * 8 + header[_CHECKSUM.stop :]
    if _octal(header[_CHECKSUM], cursor) != sum(blank):
        raise damaged(
            "this is neither a library nor a tar, or a tar's header is damaged", cursor.where
        )
    return _octal(header[_SIZE], cursor)


def _octal(field: bytes, cursor: Cursor) -> int:
    digits = field.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):
        raise damaged("this is neither a library nor a tar with readable headers", cursor.where)
    return int(digits, 8)


def _short_name(header: bytes) -> bytes:
    name = header[_NAME].partition(b"\0")[0]
    prefix = header[_PREFIX].partition(b"\0")[0] if header[_MAGIC] == _USTAR else b""
    return prefix + b"/" + name if prefix else name


def _pax_path(body: bytes, where: str) -> bytes:
    """The name that pax records give the next file: lines of length, space, key=value."""
    path = b""
    while body:
        length, space, _ = body.partition(b" ")
        known = space and length.isdigit() and len(length) < _LONGEST_NUMBER
        if not known or not len(length) < int(length) <= len(body):
            raise damaged("a record of the tar's pax header is damaged", where)
        record, body = body[len(length) + 1 : int(length) - 1], body[int(length) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            path = value
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            raise damaged("the tar holds a sparse or very large file", where)
    return path


def _file_name(raw: bytes, where: str) -> str:
    name = decode(raw, "a name in the tar", where).removeprefix("./")
    if not name or "/" in name or "\\" in name or name in {".", ".."} or "\0" in name:
        raise damaged(f"the tar holds a file outside its top folder: {name!r}", where)
    return name
