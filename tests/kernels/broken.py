"""Edits of one kernel's text inside a library's file, as mistakes would make them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.libraries.device import DeviceModule
    from edgec.libraries.open import LibraryFile

# From the beginning of a kernel to its end, in a text that holds several.
_SPANS = {
    "opencl": r"^// Function: {name}$.*?(?=^// Function: |\Z)",
    "cuda": r'^extern "C" __global__ [^;{{]*\b{name}\([^;{{]*\{{.*?^\}}',
}


@dataclass(frozen=True)
class Edit:
    """A change in one place.

    Attributes:
        kernel: a regular expression for the kernel's name, without the library's prefix.
        find: one for the place; it begins after the kernel's name.
        put: what stands there instead, in the words of ``re.Match.expand``.
        number: which of the places.
        of: how many there have to be; None if that doesn't matter.
    """

    kernel: str
    find: str
    put: str
    number: int = 0
    of: int | None = 1


def kernel_named(library: LibraryFile, pattern: str) -> str:
    """The one kernel of this name, with the library's prefix."""
    assert library.device is not None
    names = [
        name
        for name in library.device.functions
        if re.fullmatch(pattern, name.removeprefix(library.prefix))
    ]
    assert len(names) == 1, (pattern, names, sorted(library.device.functions))
    return names[0]


def kernel_text(device: DeviceModule, name: str) -> str:
    """The part of the module's text that is this kernel."""
    text = device.code_of(name).decode()
    if device.kind not in _SPANS:
        return text
    span = re.search(
        _SPANS[device.kind].format(name=re.escape(name)), text, re.DOTALL | re.MULTILINE
    )
    assert span is not None, f"the text of {name} isn't found"
    return span[0]


def broken_module(library: LibraryFile, name: str, edit: Edit) -> DeviceModule:
    """The kernels of a library, one place of one kernel changed; as many bytes."""
    device = library.device
    assert device is not None
    before = kernel_text(device, name)
    after = _edited(before, name, edit)
    code = {
        key: _replaced(text, before.encode(), after.encode()) for key, text in device.code.items()
    }
    return replace(device, code=code)


def with_module(library: LibraryFile, device: DeviceModule, path: Path) -> None:
    """Write the library with other kernels of the same size."""
    (module,) = library.blob.of_kind(device.kind)
    before, after = module.data, device.to_bytes()
    assert before is not None
    assert len(after) == len(before)
    whole = library.path.read_bytes()
    assert whole.count(before) == 1
    path.write_bytes(whole.replace(before, after))


def _replaced(text: bytes, before: bytes, after: bytes) -> bytes:
    assert text.count(before) <= 1
    return text.replace(before, after)


def _edited(text: str, name: str, edit: Edit) -> str:
    """The text with the change, and with as many bytes: other files' places don't move."""
    start = text.index(f"{name}(")
    found = list(re.compile(edit.find, re.DOTALL).finditer(text, start))
    assert len(found) > edit.number, f"{edit.find} isn't in {name}"
    assert edit.of is None or len(found) == edit.of, f"{edit.find}: {len(found)} in {name}"
    place = found[edit.number]
    put = place.expand(edit.put)
    assert put != place[0]
    put = put.ljust(len(place[0]))
    return _narrowed(text[: place.start()], len(put) - len(place[0])) + put + text[place.end() :]


def _narrowed(text: str, count: int) -> str:
    """The text without some of its indentation."""
    lines = []
    for line in text.split("\n"):
        spare = min(count, len(line) - len(line.lstrip(" "))) if line.strip() else 0
        lines.append(line[spare:])
        count -= spare
    assert count == 0, "there is too little indentation to give up"
    return "\n".join(lines)
