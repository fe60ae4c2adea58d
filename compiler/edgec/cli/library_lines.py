"""A compiled library as short lines for people: a label and a text each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.cli.output import format_bytes
from edgec.suggest import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.inspection.library import Largest, LibraryReport

Line = tuple[str, str]

_FORMATS = {"elf": "ELF", "macho": "Mach-O", "wasm": "WebAssembly"}
_FORMS = {"shared": "shared library", "archive": "static archive", "tar": "tar", "wasm": "module"}
_CODE = {
    "cl": "OpenCL C",
    "metal": "Metal text",
    "cuda": "CUDA text",
    "fatbin": "CUDA machine code for several GPUs",
    "cubin": "CUDA machine code",
    "": "WGSL",
}
_SYSTEMS = {"ios": "iOS", "macos": "macOS"}
_NEEDS = {
    "threads": "work-group",
    "shared_memory_bytes": "shared memory",
    "buffers": "buffers",
    "argument_bytes": "arguments",
}
_HOST_CODE = "_lib"
_LISTED = 8


def library_lines(report: LibraryReport, name: str) -> list[Line]:
    """What a library is.

    Args:
        report: on it.
        name: of its file, as it is shown.
    """
    if report.facts is None:
        return [("library", f"{name}: {report.problem}")]
    facts = report.facts
    lines = [("library", f"{name}: {_form(facts)}")]
    if facts["platform"]:
        name = _SYSTEMS.get(facts["platform"], facts["platform"])
        lines.append(("system", f"{name} {facts['minimum_version']} or newer"))
    lines += [
        ("symbols", _symbols(facts)),
        ("modules", ", ".join(map(_module, facts["modules"]))),
        ("functions", _functions(facts)),
    ]
    if facts["kernels"]:
        code = _CODE.get(facts["kernel_format"], facts["kernel_format"])
        lines.append(("device", f"{facts['kernels']} kernels as {code}"))
    if report.kernels:
        ordered = sorted(report.kernels, key=lambda item: _place(item.what))
        lines.append(("largest", ", ".join(map(_largest, ordered))))
    return lines


def _form(facts: Mapping[str, Any]) -> str:
    kind = facts["form"].rpartition("-")[2]
    parts = [f"{_FORMATS[facts['format']]} {_FORMS[kind]} for {facts['machine']}"]
    if kind not in {"shared", "wasm"}:
        parts.append(f"{len(facts['files'])} objects")
    if facts["load_alignment"]:
        parts.append(f"aligned to {format_bytes(facts['load_alignment'])}")
    if facts["needed"]:
        parts.append(f"needs {listing(facts['needed'])}")
    return ", ".join(parts)


def _symbols(facts: Mapping[str, Any]) -> str:
    prefix = f"with the prefix {facts['prefix']}" if facts["prefix"] else "without a prefix"
    undefined = facts["undefined"]
    wanted = f", {len(undefined)} undefined: {_some(undefined)}" if undefined else ""
    return f"{len(facts['exported'])} exported {prefix}{wanted}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _module(module: Mapping[str, Any]) -> str:
    if module["kind"] == _HOST_CODE:
        return "host code"
    return f"{module['kind']} {format_bytes(module['bytes'] or 0)}"


def _functions(facts: Mapping[str, Any]) -> str:
    return (
        f"{len(facts['functions'])} for engines, {facts['host_functions']} in host code;"
        f" {len(facts['builtins'])} called of the runtime"
    )


def _place(what: str) -> int:
    return list(_NEEDS).index(what) if what in _NEEDS else len(_NEEDS)


def _largest(item: Largest) -> str:
    amount = format_bytes if item.what.endswith("_bytes") else str
    limit = "" if item.limit is None else f" of {amount(item.limit)}"
    return f"{_NEEDS.get(item.what, item.what)} {amount(item.value)}{limit} ({item.kernel})"
