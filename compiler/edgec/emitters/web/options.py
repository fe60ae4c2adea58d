"""What compilers and linkers are told, and what a library for browsers offers and asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.libraries.open import BLOB_SYMBOL

if TYPE_CHECKING:
    from edgec.emitters.web.toolchain import Kind

_PAGE = 1 << 16
_INITIAL_MEMORY = 160 << 20
# One page less than there are addresses: not every linker can read the number of all.
_LARGEST_MEMORY = (1 << 32) - _PAGE
_STACK = 5 << 20

EXPORTS = (
    "TVMFFIAnyViewToOwnedAny",
    "TVMFFIDataTypeFromString",
    "TVMFFIDataTypeToString",
    "TVMFFIErrorSetRaisedFromCStr",
    "TVMFFIFunctionCall",
    "TVMFFIFunctionGetGlobal",
    "TVMFFIFunctionSetGlobal",
    "TVMFFIGetTypeInfo",
    "TVMFFIObjectDecRef",
    "TVMFFIObjectIncRef",
    "TVMFFIStringFromByteArray",
    "TVMFFITypeKeyToIndex",
    "TVMFFIWasmFunctionCreate",
    "TVMFFIWasmGetLastError",
    "TVMWasmAllocSpace",
    "TVMWasmFreeSpace",
    "free",
    "malloc",
)
"""What TVM's JavaScript calls, besides what every program for WebAssembly exports."""

REQUIRED = frozenset((*EXPORTS, "_initialize", "memory", BLOB_SYMBOL))
"""What a library has to export: the above, and where readers find its modules."""

OFFERED = frozenset(
    (
        "env.TVMFFIWasmFunctionDeleter",
        "env.TVMFFIWasmSafeCall",
        "env.emscripten_notify_memory_growth",
        "wasi_snapshot_preview1.clock_time_get",
        "wasi_snapshot_preview1.environ_get",
        "wasi_snapshot_preview1.environ_sizes_get",
        "wasi_snapshot_preview1.fd_close",
        "wasi_snapshot_preview1.fd_read",
        "wasi_snapshot_preview1.fd_seek",
        "wasi_snapshot_preview1.fd_write",
        "wasi_snapshot_preview1.proc_exit",
    )
)
"""All that WebLLM's JavaScript has for a library to import."""

_COMPILE = (
    "-std=c++17",
    # A quarter smaller than with -O2, and as fast: what takes time runs on the GPU.
    "-Oz",
    # Every browser with WebGPU has it; weights are copied faster.
    "-mbulk-memory",
    "-w",
    *("-I.", "-Iinclude", "-I3rdparty/tvm-ffi/include"),
    "-DTVM_FFI_CMAKE_LITTLE_ENDIAN=1",
)
# An exception ends the program, as in TVM's own build for browsers.
_WASI_COMPILE = ("-Ilibcxx", "-fexceptions", "-fcxx-exceptions", "-fignore-exceptions")
# With Emscripten TVM's headers would let all functions be exported, which then stay in the library.
_MARKS = ("TVM_DLL", "TVM_FFI_DLL", "TVM_RUNTIME_DLL")
_EMSCRIPTEN_COMPILE = tuple(f"-D{mark}{end}=" for mark in _MARKS for end in ("", "_EXPORT"))

_WASI_LINK = (
    "-mexec-model=reactor",
    *(f"-Wl,--export={name}" for name in (*EXPORTS, BLOB_SYMBOL)),
    f"-Wl,--initial-memory={_INITIAL_MEMORY}",
    f"-Wl,--max-memory={_LARGEST_MEMORY}",
    f"-Wl,-z,stack-size={_STACK}",
    "-Wl,--strip-all",
)
_LINK: dict[Kind, tuple[str, ...]] = {
    # The stack comes first: when it overflows, the program ends instead of overwriting its data.
    # A function that is called with other types than it has is an error.
    "clang": (*_WASI_LINK, "-Wl,--stack-first", "-Wl,--fatal-warnings"),
    # Zig puts the stack first by itself.
    "zig": ("-Oz", *_WASI_LINK),
    "emscripten": (
        # More would optimize all of the runtime again for each library.
        "-O1",
        "--no-entry",
        "-sSTANDALONE_WASM=1",
        "-sWASM_BIGINT=1",
        "-sALLOW_MEMORY_GROWTH=1",
        f"-sINITIAL_MEMORY={_INITIAL_MEMORY}",
        f"-sMAXIMUM_MEMORY={_LARGEST_MEMORY}",
        f"-sTOTAL_STACK={_STACK}",
        # What JavaScript offers is not defined here; the library's imports are checked afterwards.
        "-sERROR_ON_UNDEFINED_SYMBOLS=0",
        "-sWARN_ON_UNDEFINED_SYMBOLS=0",
        f"-sEXPORTED_FUNCTIONS={','.join(f'_{name}' for name in EXPORTS)}",
        f"-Wl,--export={BLOB_SYMBOL}",
        "-Wl,--strip-all",
    ),
}


def compile_options(kind: Kind) -> tuple[str, ...]:
    """Options that compile one of the runtime's files, in the folder of its sources."""
    return (*_COMPILE, *(_EMSCRIPTEN_COMPILE if kind == "emscripten" else _WASI_COMPILE))


def link_options(kind: Kind) -> tuple[str, ...]:
    """Options that link the runtime's and a model's objects."""
    return _LINK[kind]
