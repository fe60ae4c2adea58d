"""A library in a few plain facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.libraries.bytecode import bytecode_functions
from edgec.libraries.elf import Elf
from edgec.libraries.macho import MachO

if TYPE_CHECKING:
    from edgec.libraries.open import LibraryFile


def facts(library: LibraryFile) -> dict[str, Any]:
    """What is in a library, as plain data.

    Returns:
        ``form``, ``format``, ``machine``, ``prefix``;
        ``files``: names and sizes in bytes;
        ``exported``, ``undefined``: symbols as C sees them, sorted; what the object files of an
        archive find in each other isn't undefined; of a WebAssembly module exports and imports;
        ``needed``: shared libraries;
        ``load_alignment``: bytes, the smallest of all LOAD segments; None but for shared ELF
        objects;
        ``platform``, ``minimum_version``: of Mach-O, else None;
        ``modules``: kinds and sizes in bytes (None for host code), the root first;
        ``functions``: defined by the bytecode, sorted;
        ``builtins``: called by the bytecode and not among the host functions, sorted: what the
        runtime has to have;
        ``host_functions``, ``kernels``: how many;
        ``kernel_format``: None if there are no kernels, empty for WGSL.

    Raises:
        VerificationError: the table of functions of the bytecode is damaged.
    """
    functions = bytecode_functions(library.bytecode, f"{library.path}: the bytecode")
    called = {f.name for f in functions if f.kind == "packed"}
    # TVM writes them with the prefix or without it.
    own = {begin + name for begin in ("", library.prefix) for name in library.host_functions}
    images = [item.image for item in library.objects]
    exported = {name for image in images for name in image.exported}
    undefined = {name for image in images for name in image.undefined}
    needed = {name: None for image in images for name in image.needed}
    first, device = images[0], library.device
    return {
        "form": library.form,
        "format": first.format,
        "machine": library.machine,
        "prefix": library.prefix,
        "files": [{"name": item.name, "bytes": len(item.data)} for item in library.objects],
        "exported": sorted(exported),
        "undefined": sorted(undefined - exported),
        "needed": list(needed),
        "load_alignment": (isinstance(first, Elf) and first.load_alignment) or None,
        "platform": first.platform if isinstance(first, MachO) else None,
        "minimum_version": first.minimum_version if isinstance(first, MachO) else None,
        "modules": [
            {"kind": module.kind, "bytes": None if module.data is None else len(module.data)}
            for module in library.blob.modules
        ],
        "functions": sorted(f.name for f in functions if f.kind != "packed"),
        "builtins": sorted(called - own),
        "host_functions": len(library.host_functions),
        "kernels": len(device.functions) if device else 0,
        "kernel_format": device.format if device else None,
    }
