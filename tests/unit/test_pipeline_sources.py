import sys
import time
from pathlib import Path

import pytest

from edgec.files import sha256_file
from edgec.pipeline.sources import Sources


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "pkg"
    for folder in (root, root / "sub", root / "sub" / "deep", root / "data"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    for name in ("a", "b", "c", "sub/d", "sub/e", "sub/deep/f"):
        (root / f"{name}.py").touch()
    return root


def closure(package: Path, source: str, module: str = "main") -> set[str]:
    """What ``module`` with this source imports, without itself and the packages above it."""
    file = package / f"{module.replace('.', '/')}.py"
    file.write_text(source)
    found = Sources("pkg", package).closure([f"pkg.{module}"])
    return {key.removeprefix("pkg/") for key in found} - {f"{module.replace('.', '/')}.py"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", set()),
        ("import os, numpy.linalg", set()),
        ("import pkg.a", {"a.py"}),
        ("import pkg.a as x, pkg.b", {"a.py", "b.py"}),
        ("from pkg import a, b", {"a.py", "b.py"}),
        ("from pkg import something", set()),
        ("from pkg.a import something", {"a.py"}),
        ("from pkg.sub import d", {"sub/__init__.py", "sub/d.py"}),
        ("from pkg.sub import *", {"sub/__init__.py"}),
        ("from . import a", {"a.py"}),
        ("from .sub.d import x", {"sub/__init__.py", "sub/d.py"}),
        (
            "import pkg.sub.deep.f",
            {"sub/__init__.py", "sub/deep/__init__.py", "sub/deep/f.py"},
        ),
        ("def f():\n  if x:\n    import pkg.a", {"a.py"}),
        ("class A:\n  async def f(self):\n    from pkg import b", {"b.py"}),
        ("try:\n  import pkg.a\nexcept E:\n  import pkg.b\nfinally:\n  import pkg.c", "abc"),
        ("with x:\n  for i in y:\n    while z:\n      import pkg.a", {"a.py"}),
        ("match x:\n  case 1:\n    import pkg.a", {"a.py"}),
        ("if TYPE_CHECKING:\n  import pkg.a\nelse:\n  import pkg.b", {"b.py"}),
        ("import typing\nif typing.TYPE_CHECKING:\n  import pkg.a", set()),
        ("if not TYPE_CHECKING:\n  import pkg.a\nelse:\n  import pkg.b", {"a.py"}),
        ("if TYPE_CHECKING:\n  import pkg.a\nelif x:\n  import pkg.c", {"c.py"}),
        ("text = 'import pkg.a'", set()),
    ],
)
def test_imports_of_a_module(package: Path, source: str, expected: set[str] | str) -> None:
    files = {f"{name}.py" for name in expected} if isinstance(expected, str) else expected
    assert closure(package, source) == {"__init__.py"} | files


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from . import e", {"sub/e.py"}),
        ("from .e import x", {"sub/e.py"}),
        ("from .. import a", {"a.py"}),
        ("from ..a import x", {"a.py"}),
        ("from .deep import f", {"sub/deep/__init__.py", "sub/deep/f.py"}),
    ],
)
def test_relative_imports_in_a_subpackage(package: Path, source: str, expected: set[str]) -> None:
    assert closure(package, source, "sub.main") == {"__init__.py", "sub/__init__.py"} | expected


def test_relative_imports_in_an_init_file(package: Path) -> None:
    (package / "sub" / "__init__.py").write_text("from .d import x\nfrom ..c import y")
    assert closure(package, "import pkg.sub") == {
        "__init__.py",
        "sub/__init__.py",
        "sub/d.py",
        "c.py",
    }


def test_imports_are_followed_round_a_circle(package: Path) -> None:
    (package / "a.py").write_text("import pkg.b")
    (package / "b.py").write_text("import pkg.c")
    (package / "c.py").write_text("import pkg.a")
    assert closure(package, "import pkg.a") == {"__init__.py", "a.py", "b.py", "c.py"}


def test_digests_follow_the_bytes_of_the_files(package: Path) -> None:
    before = Sources("pkg", package).closure(["pkg.a"])
    (package / "a.py").write_text("import pkg.b\n")
    after = Sources("pkg", package).closure(["pkg.a"])

    assert before["pkg/__init__.py"] == after["pkg/__init__.py"]
    assert before["pkg/a.py"] != after["pkg/a.py"] == sha256_file(package / "a.py")
    assert "pkg/b.py" in after


def test_a_root_elsewhere_stands_for_its_own_file(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package.parent / "foreign_root.py").write_text("import pkg.a")
    monkeypatch.syspath_prepend(package.parent)
    assert list(Sources("pkg", package).closure(["foreign_root"])) == ["foreign_root.py"]


@pytest.mark.parametrize("name", ["pkg.nothing", "no_such_module_at_all", "sys"])
def test_a_root_that_has_no_source_is_an_error(
    package: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package.parent)
    with pytest.raises(ModuleNotFoundError, match=name):
        Sources("pkg", package).closure([name])


def test_the_closure_of_edgec_itself() -> None:
    found = Sources().closure(["edgec.pipeline.worker"])
    assert {"edgec/__init__.py", "edgec/stages/context.py", "edgec/errors.py"} <= found.keys()
    # These are imported for type checking only.
    assert "edgec/progress.py" not in found


def test_a_hundred_files_take_no_time(tmp_path: Path) -> None:
    root = tmp_path / "pkg"
    root.mkdir()
    text = (Path(__file__).resolve()).read_text()
    for number in range(100):
        source = text + f"\nfrom pkg import m{number + 1}\n# {number}\n"
        (root / f"m{number}.py").write_text(source)
    started = time.process_time()
    found = Sources("pkg", root).closure(["pkg.m0"])
    first = time.process_time() - started
    started = time.process_time()
    Sources("pkg", root).closure(["pkg.m0"])
    again = time.process_time() - started

    assert len(found) == 100
    limit = 1.0 if sys.gettrace() is None else 10.0
    assert first < limit
    assert again < limit / 5
