"""The sources of TVM's runtime for browsers, put together as they were in TVM's own tree."""

from __future__ import annotations

import hashlib
import shutil
from functools import lru_cache
from pathlib import Path

from edgec.emitters.web.toolchain import package_folder
from edgec.errors import ToolchainError

UNITS = (
    "web/emcc/wasm_runtime.cc",
    "web/emcc/webgpu_runtime.cc",
    "entry.cc",
    "support.cc",
    "system.cc",
)
"""The files to compile; the first one includes nearly all of TVM's."""

_OWN = Path(__file__).parent / "sources"
# Python package, folder in it, folder in TVM's tree.
_COPIED = (
    ("tvm", "include", "include"),
    ("tvm", "src/runtime", "src/runtime"),
    ("tvm", "web/emcc", "web/emcc"),
    ("tvm_ffi", "include", "3rdparty/tvm-ffi/include"),
    ("tvm_ffi", "src", "3rdparty/tvm-ffi/src"),
)
_KINDS = frozenset((".cc", ".h", ".inc"))
# Calls from other machines, which tune kernels, and TVM's tests of itself: a chat needs neither, and
# the runtime's JavaScript asks for them only where a page does.
_LEFT_OUT = (
    *(
        f"src/runtime/rpc/rpc_{name}.cc"
        for name in ("channel", "endpoint", "event_impl", "local_session", "module", "session")
    ),
    "3rdparty/tvm-ffi/src/ffi/testing/testing.cc",
)


def make_tree(folder: Path) -> None:
    """Write all sources into a folder that doesn't exist.

    What is compiled there doesn't depend on where the folder is, as long as it is compiled in it,
    with paths that begin there.

    Raises:
        ToolchainError: TVM's sources aren't there.
    """
    for package, source, place in _COPIED:
        for path in _files(_package_folder(package, source)):
            _copy(path, folder / place / path.relative_to(package_folder(package) / source))
    # Headers that TVM's sources include and its wheel lacks: a wheel that has one has the right one.
    for path in _files(_OWN):
        target = folder / path.relative_to(_OWN)
        if not target.exists():
            _copy(path, target)
    for name in _LEFT_OUT:
        (folder / name).write_text("")


@lru_cache
def sources_digest() -> str:
    """A digest of all that :func:`make_tree` writes.

    Raises:
        ToolchainError: TVM's sources aren't there.
    """
    total = hashlib.sha256(repr((_COPIED, _LEFT_OUT)).encode())
    folders = [_package_folder(package, source) for package, source, _ in _COPIED]
    for folder in (*folders, _OWN):
        for path in _files(folder):
            name = path.relative_to(folder).as_posix()
            total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _package_folder(package: str, source: str) -> Path:
    folder = package_folder(package) / source
    if not folder.is_dir():
        raise ToolchainError(
            f"{package} comes without the sources of its runtime",
            where=str(folder),
            remedy="install the wheel of apache-tvm that edgec requires",
        )
    return folder


def _files(folder: Path) -> list[Path]:
    """C++ files of a folder; those of C++'s own library have no suffix."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and (path.suffix in _KINDS or path.parent.name == "libcxx")
    )


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
