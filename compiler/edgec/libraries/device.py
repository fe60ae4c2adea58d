"""A device module: the kernels of a library, and what TVM knows of how to launch them.

TVM writes three layouts. OpenCL and CUDA: the code's format, the kernels' signatures, one code.
Metal and Vulkan: format, signatures, a map from kernel to code. WebGPU: the same without format.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from edgec.libraries.argtypes import type_code, type_name
from edgec.libraries.blob import sized
from edgec.libraries.cursor import Cursor, damaged

if TYPE_CHECKING:
    from collections.abc import Mapping

_ONE_CODE = ("cuda", "opencl")
_CODE_PER_KERNEL = ("metal", "vulkan")
_WITHOUT_FORMAT = ("webgpu",)
# Marks that stand among the launch tags and have no extent.
_WRITTEN = "paramWriteAccess:"
KINDS = frozenset((*_ONE_CODE, *_CODE_PER_KERNEL, *_WITHOUT_FORMAT))
"""The kinds of modules that :meth:`DeviceModule.parse` reads."""


@dataclass(frozen=True)
class KernelInfo:
    """How one kernel is called.

    A host function passes the arguments in order, then one extent for each of the extent tags.

    Attributes:
        name: of the kernel in the code.
        arg_types: in TVM's notation: ``"handle"`` for a buffer, ``"int32"``, ``"float16"``, ....
        launch_tags: what the extents after the arguments are: ``"blockIdx.x"``, ``"threadIdx.y"``,
            ``"tirx.use_dyn_shared_memory"`` (bytes), .... For WebGPU which buffers are written
            stands there too: ``"paramWriteAccess:[1,0]"``.
        extra: one mark per argument; 1 is a CUDA tensor map, 0 anything else. May be empty.
    """

    name: str
    arg_types: tuple[str, ...]
    launch_tags: tuple[str, ...]
    extra: tuple[int, ...] = ()

    @cached_property
    def extent_tags(self) -> tuple[str, ...]:
        """The launch tags that an extent is passed for."""
        return tuple(tag for tag in self.launch_tags if not tag.startswith(_WRITTEN))

    @cached_property
    def written(self) -> tuple[bool, ...] | None:
        """Whether it writes each of its buffers, in order; None if the tags don't say.

        Raises:
            VerificationError: they say something else.
        """
        marks = [tag for tag in self.launch_tags if tag.startswith(_WRITTEN)]
        if not marks:
            return None
        try:
            values = json.loads(marks[0].removeprefix(_WRITTEN))
        except ValueError:
            values = None
        buffers = self.arg_types.count("handle")
        known = isinstance(values, list) and all(value in (0, 1) for value in values)
        if not known or len(values) != buffers:
            raise damaged(f"its {buffers} buffers aren't marked by {marks[0]}", self.name)
        return tuple(map(bool, values))


@dataclass(frozen=True)
class DeviceModule:
    """The kernels of a library.

    Attributes:
        kind: ``"opencl"``, ``"metal"``, ``"cuda"``, ``"vulkan"`` or ``"webgpu"``.
        format: of the code, in TVM's words: ``"cl"``, ``"metal"``, ``"cuda"`` (source),
            ``"fatbin"``, ``"cubin"``, ``"ptx"``; empty for WebGPU.
        functions: by the name that host functions launch.
        code: one text under the key ``""`` (OpenCL, CUDA), or one for each kernel.
    """

    kind: str
    format: str
    functions: Mapping[str, KernelInfo]
    code: Mapping[str, bytes]

    @staticmethod
    def parse(kind: str, data: bytes, where: str = "") -> DeviceModule:
        """Read the bytes of a device module.

        Args:
            kind: one of :data:`KINDS`.
            data: a blob module's.
            where: names the module in error messages.

        Raises:
            VerificationError: they are damaged.
        """
        assert kind in KINDS, kind
        where = where or f"the {kind} module"
        cursor = Cursor(data, where)
        format_ = "" if kind in _WITHOUT_FORMAT else cursor.text("the format")
        functions = _functions(cursor)
        code: dict[str, bytes] = {}
        if kind in _ONE_CODE:
            code[""] = cursor.sized("the code")
        else:
            for _ in range(cursor.u64("the map of kernels")):
                name = cursor.text("a kernel's name")
                if name in code:
                    raise damaged(f"the code of {name} is there twice", where)
                code[name] = cursor.sized(f"the code of {name}")
            missing = sorted(functions.keys() - code.keys())
            if missing:
                raise damaged(f"there is no code for the kernel {missing[0]}", where)
        cursor.finish("the last kernel")
        return DeviceModule(kind, format_, functions, code)

    def to_bytes(self) -> bytes:
        """The inverse of :meth:`parse`."""
        parts = [] if self.kind in _WITHOUT_FORMAT else [sized(self.format.encode())]
        parts.append(struct.pack("<Q", len(self.functions)))
        for key, kernel in self.functions.items():
            parts += [sized(key.encode()), _kernel_bytes(kernel)]
        if self.kind in _ONE_CODE:
            parts.append(sized(self.code[""]))
        else:
            parts.append(struct.pack("<Q", len(self.code)))
            for name, code in self.code.items():
                parts += [sized(name.encode()), sized(code)]
        return b"".join(parts)

    def code_of(self, name: str) -> bytes:
        """The code that holds one kernel."""
        return self.code[""] if self.kind in _ONE_CODE else self.code[name]


def _functions(cursor: Cursor) -> dict[str, KernelInfo]:
    functions: dict[str, KernelInfo] = {}
    for _ in range(cursor.u64("the map of signatures")):
        key = cursor.text("a kernel's name")
        if key in functions:
            raise damaged(f"the kernel {key} is there twice", cursor.where)
        functions[key] = _kernel(cursor)
    return functions


def _kernel(cursor: Cursor) -> KernelInfo:
    name = cursor.text("a kernel's name")
    what = f"the signature of {name}"
    arg_types = tuple(
        type_name(code, bits, lanes, f"{cursor.where}: {name}")
        for code, bits, lanes in cursor.rows("BBH", cursor.u64(what), what)
    )
    launch_tags = tuple(cursor.text(what) for _ in range(cursor.u64(what)))
    extra = tuple(row[0] for row in cursor.rows("i", cursor.u64(what), what))
    return KernelInfo(name, arg_types, launch_tags, extra)


def _kernel_bytes(kernel: KernelInfo) -> bytes:
    types = b"".join(struct.pack("<BBH", *type_code(name)) for name in kernel.arg_types)
    tags = b"".join(sized(tag.encode()) for tag in kernel.launch_tags)
    return b"".join(
        (
            sized(kernel.name.encode()),
            struct.pack("<Q", len(kernel.arg_types)) + types,
            struct.pack("<Q", len(kernel.launch_tags)) + tags,
            struct.pack(f"<Q{len(kernel.extra)}i", len(kernel.extra), *kernel.extra),
        )
    )
