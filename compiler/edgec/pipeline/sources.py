"""The sources that a module runs: what it imports inside edgec, found without importing it.

The closure follows every ``import`` statement, also inside functions, and leaves out what stands
under ``if TYPE_CHECKING``. The ``__init__`` files of the packages on the way belong to it, since
importing a module runs them. Imports by a computed name (``importlib.import_module``) can't be
seen: who uses them names the modules as further roots. Data files aren't included.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PACKAGE = Path(__file__).resolve().parent.parent


class Sources:
    """A snapshot of the source files of one package: each is read at most once.

    Args:
        package: the top-level package whose imports are followed.
        root: its folder.
    """

    def __init__(self, package: str = "edgec", root: Path = _PACKAGE) -> None:
        self._package = package
        self._root = root
        self._files: dict[Path, bytes | None] = {}

    def closure(self, roots: Iterable[str]) -> dict[str, str]:
        """The files of the modules ``roots`` and of all that they import inside the package.

        A root outside the package stands for its own file only.

        Returns:
            File, as a path below the source root with ``/``, to the sha256 of its bytes.

        Raises:
            ModuleNotFoundError: if a root doesn't exist.
        """
        found: dict[str, str] = {}
        seen: set[str] = set()
        waiting: list[str] = []
        for root in roots:
            if root.partition(".")[0] != self._package:
                found |= _foreign(root)
            elif self._find(root):
                waiting.append(root)
            else:
                raise _no_source(root)
        while waiting:
            module = waiting.pop()
            if module in seen:
                continue
            seen.add(module)
            file = self._find(module)
            if file is None:
                continue
            path, is_package = file
            data = self._files[path]
            assert data is not None
            found[f"{self._package}/{path.relative_to(self._root).as_posix()}"] = _sha256(data)
            waiting += _imports(data, module, is_package)
            waiting += _ancestors(module)
        return dict(sorted(found.items()))

    def _find(self, module: str) -> tuple[Path, bool] | None:
        """The module's file and whether it is a package; None for what isn't a module here."""
        package, *rest = module.split(".")
        if package != self._package:
            return None
        base = self._root.joinpath(*rest)
        init = base / "__init__.py"
        if self._read(init) is not None:
            return init, True
        plain = base.with_name(f"{base.name}.py")
        if rest and self._read(plain) is not None:
            return plain, False
        return None

    def _read(self, path: Path) -> bytes | None:
        if path not in self._files:
            try:
                self._files[path] = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                self._files[path] = None
        return self._files[path]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _no_source(module: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"no source file for module {module!r}", name=module)


def _ancestors(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _foreign(module: str) -> dict[str, str]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.has_location:
        raise _no_source(module)
    path = Path(spec.origin)
    key = "/".join([*module.split(".")[:-1], path.name])
    return {key: _sha256(path.read_bytes())}


@functools.lru_cache(maxsize=4096)
def _imports(data: bytes, module: str, is_package: bool) -> tuple[str, ...]:
    """Every name that may be a module which ``module`` imports; those that aren't do no harm.

    The cache is keyed by the file's bytes, so that an edited file is parsed again.
    """
    package = module if is_package else module.rpartition(".")[0]
    names: dict[str, None] = {}
    for node in _statements(ast.parse(data).body):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names[base] = None
            names |= dict.fromkeys(f"{base}.{alias.name}" for alias in node.names)
    return tuple(names)


def _base(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements below ``body``. Expressions hold no imports and are most of a tree."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if not _is_never_run(node, name):
                yield from _statements(getattr(node, name, []))
        for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(branch.body)


def _is_never_run(node: ast.stmt, branch: str) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return branch == "orelse" and _is_type_checking(test.operand)
    return branch == "body" and _is_type_checking(test)


def _is_type_checking(test: ast.expr) -> bool:
    name = "TYPE_CHECKING"
    if isinstance(test, ast.Attribute):
        return test.attr == name
    return isinstance(test, ast.Name) and test.id == name
