"""Open a compiled model library, whatever file it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.errors import UsageError, VerificationError
from edgec.libraries import ar, tarball
from edgec.libraries.blob import BYTECODE, Blob, blob_size
from edgec.libraries.cursor import damaged
from edgec.libraries.device import KINDS, DeviceModule
from edgec.libraries.objects import ObjectFile, is_object, parse_image, parse_objects
from edgec.libraries.wasm import Wasm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from edgec.libraries.objects import Image

BLOB_SYMBOL = "__tvm_ffi__library_bin"
FUNCTION_PREFIX = "__tvm_ffi_"
# What begins like a host function and is something else: the blob, the context, descriptions.
_NO_FUNCTION = "__tvm_ffi__"


@dataclass(frozen=True)
class LibraryFile:
    """A compiled model library.

    Attributes:
        path: of the file.
        form: ``"elf-shared"``, ``"macho-shared"``, ``"elf-archive"``, ``"macho-archive"``,
            ``"tar"``, ``"wasm"``.
        machine: of the host code: ``"aarch64"``, ``"x86_64"``, ``"wasm32"``, ....
        prefix: of its symbols; empty if it has none.
        objects: the shared object or module itself, or the object files of the archive.
        blob: bytecode and device module.
        bytecode: what the Relax virtual machine loads.
        device: the kernels; None if the host code is all there is.
        host_functions: names of the host functions without the prefix, sorted. The bytecode, and
            the kernels' names, have the prefix before them.
    """

    path: Path
    form: str
    machine: str
    prefix: str
    objects: tuple[ObjectFile, ...]
    blob: Blob
    bytecode: bytes
    device: DeviceModule | None
    host_functions: tuple[str, ...]

    @property
    def object_format(self) -> str:
        """``"elf"``, ``"macho"`` or ``"wasm"``."""
        return self.objects[0].image.format

    def host_symbol(self, function: str) -> str:
        """The symbol of one of ``host_functions``, as C sees it."""
        return f"{FUNCTION_PREFIX}{self.prefix}{function}"


def open_library(path: Path, prefix: str | None = None) -> LibraryFile:
    """Read a library.

    Args:
        path: of a shared object, a WebAssembly module, a static archive, or a tar of object files.
        prefix: which library of an archive with several; None if there is but one.

    Raises:
        UsageError: the file can't be read, or it holds several libraries and none is named.
        VerificationError: it is damaged, or holds no library.
    """
    form, objects, blobs = _read(path)
    return _library(path, form, objects, blobs, _choose(prefix, sorted(blobs), str(path)))


def open_libraries(path: Path) -> list[LibraryFile]:
    """Read every library in a file, at least one, by prefix.

    Args:
        path: of a shared object, a WebAssembly module, a static archive, or a tar of object files.

    Raises:
        UsageError: the file can't be read.
        VerificationError: it is damaged, or holds no library.
    """
    form, objects, blobs = _read(path)
    return [_library(path, form, objects, blobs, prefix) for prefix in sorted(blobs)]


def _read(path: Path) -> tuple[str, tuple[ObjectFile, ...], dict[str, memoryview]]:
    """Form, objects and blobs of a file."""
    where = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the library can't be read: {error.strerror or error}", where=where
        ) from error
    form, objects = _objects(data, path.name, where)
    blobs = _blobs(objects)
    if not blobs:
        raise damaged(f"no symbol ends in {BLOB_SYMBOL}, so this is no library of TVM", where)
    return form, objects, blobs


def _library(
    path: Path,
    form: str,
    objects: tuple[ObjectFile, ...],
    blobs: Mapping[str, memoryview],
    prefix: str,
) -> LibraryFile:
    where = str(path)
    blob = Blob.parse(blobs[prefix], f"{where}: the blob")
    return LibraryFile(
        path,
        form,
        objects[0].image.machine,
        prefix,
        objects,
        blob,
        _bytecode(blob, where),
        _device(blob, where),
        _host_functions(objects, prefix, sorted(blobs)),
    )


def _objects(data: bytes, name: str, where: str) -> tuple[str, tuple[ObjectFile, ...]]:
    """The form of a file, and what is in it."""
    if is_object(data):
        image = parse_image(data, where)
        if image.kind not in {"shared", "module"}:
            raise damaged(f"this is one part of a library, of the kind {image.kind}", where)
        form = f"{image.format}-shared" if image.kind == "shared" else image.format
        return form, (ObjectFile(name, data, image),)
    if data.startswith(ar.MAGIC):
        archive = ar.Archive.parse(data, where)
        objects = parse_objects(archive.members, where)
        return f"{objects[0].image.format}-archive", objects
    return "tar", parse_objects(tarball.read_tar(data, where), where)


def _blobs(objects: Sequence[ObjectFile]) -> dict[str, memoryview]:
    """The blob of every library in the objects, by the prefix of its symbols."""
    found = {}
    for item in objects:
        for name in item.image.exported:
            if name.endswith(BLOB_SYMBOL):
                held = item.image.read(name)
                found[name.removesuffix(BLOB_SYMBOL)] = held[: blob_size(held, item.image.where)]
    return found


def _choose(prefix: str | None, found: Sequence[str], where: str) -> str:
    if prefix is None:
        if len(found) > 1:
            raise UsageError(
                f"there are {len(found)} libraries in it, with the prefixes {', '.join(found)}",
                where=where,
                remedy="name one of them",
            )
        return found[0]
    if prefix not in found:
        raise VerificationError(
            f"there is no library with the prefix {prefix!r}, only {', '.join(map(repr, found))}",
            where=where,
        )
    return prefix


def _bytecode(blob: Blob, where: str) -> bytes:
    modules = blob.of_kind(BYTECODE)
    if len(modules) != 1 or modules[0].data is None:
        raise damaged(f"{len(modules)} modules hold bytecode, one should", where)
    return modules[0].data


def _device(blob: Blob, where: str) -> DeviceModule | None:
    modules = [module for module in blob.modules if module.kind in KINDS]
    if len(modules) > 1:
        kinds = ", ".join(module.kind for module in modules)
        raise damaged(f"{len(modules)} modules hold kernels ({kinds}), at most one should", where)
    if not modules or modules[0].data is None:
        return None
    kind, data = modules[0].kind, modules[0].data
    return DeviceModule.parse(kind, data, f"{where}: the {kind} module")


def _host_functions(
    objects: Sequence[ObjectFile], prefix: str, prefixes: Sequence[str]
) -> tuple[str, ...]:
    start = FUNCTION_PREFIX + prefix
    # One prefix can be the begin of another, as with models of nearly the same name.
    others = tuple(FUNCTION_PREFIX + p for p in prefixes if len(p) > len(prefix))
    names = {
        name.removeprefix(start)
        for item in objects
        for name in _linkable(item.image)
        if name.startswith(start)
        and not name.startswith(_NO_FUNCTION)
        and not (others and name.startswith(others))
    }
    return tuple(sorted(names))


def _linkable(image: Image) -> Iterable[str]:
    """By which names the runtime finds functions: a module exports none but tells it theirs."""
    return image.strings(FUNCTION_PREFIX) if isinstance(image, Wasm) else image.exported
