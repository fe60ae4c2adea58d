"""The house rules that a machine can check: where imports point, and what loads what."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import edgec
from edgec.models.find import families

PACKAGE = Path(edgec.__file__).parent

# Lower layers know nothing of higher ones. What isn't named is a module of the ground floor.
LAYERS = {
    "recipe": 1,
    "target": 1,
    "artifacts": 2,
    "checkpoints": 2,
    "emitters": 2,
    "inspection": 4,
    "diagnosis": 4,
    "importers": 2,
    "ir": 2,
    "layouts": 2,
    "models": 2,
    "packaging": 3,
    "passes": 2,
    "quantization": 2,
    "runtime": 2,
    "scheduling": 2,
    "standins": 2,
    "verification": 2,
    "stages": 3,
    "pipeline": 4,
    "cli": 5,
    "__main__": 6,
}
SHARED_BY_STAGES = {
    "context",
    "context_inputs",
    "generic_source",
    "library",
    "lowering",
    "model_file",
    "names",
    "quantization_inputs",
}


def _files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def _module(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _named(node: ast.AST) -> set[tuple[str, ...]]:
    """The modules of edgec that one import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module == "edgec":
        names = [f"edgec.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        names = [node.module]
    else:
        names = []
    return {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "edgec"}


def _imports(path: Path) -> set[tuple[str, ...]]:
    """What a file imports of edgec when it runs; imports for type checkers don't count."""
    found: set[tuple[str, ...]] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        found.update(_named(node))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def _layer(module: tuple[str, ...]) -> int:
    return LAYERS.get(module[0], 0) if module else 0


def test_imports_point_downward() -> None:
    wrong = [
        f"{'.'.join(_module(path))} imports {'.'.join(target)}"
        for path in _files()
        for target in _imports(path)
        if _layer(_module(path)) < _layer(target)
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in _files():
        module = _module(path)
        if len(module) < 2:
            continue
        targets = {target[0] for target in _imports(path) if len(target) > 1}
        graph.setdefault(module[0], set()).update(targets - {module[0]})
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"packages import each other: {' <- '.join(error.args[1])}")


def test_stages_do_not_import_each_other() -> None:
    for path in sorted((PACKAGE / "stages").glob("*.py")):
        for target in _imports(path):
            if target[0] == "stages" and len(target) > 1:
                assert target[1] in SHARED_BY_STAGES, f"{path.name} imports {target[1]}"


def test_files_stay_small() -> None:
    long = {
        path.relative_to(PACKAGE).as_posix(): count
        for path in _files()
        if (count := len(path.read_text().splitlines())) > 450
    }
    assert not long


def test_every_family_has_what_the_finder_promises() -> None:
    assert "llama" in families()
    for name in families():
        tree = ast.parse((PACKAGE / "models" / f"{name}.py").read_text())
        names = {
            node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        }
        names |= {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert {"Config", "build", "IGNORED_TENSORS"} <= names, name


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("edgec", {"numpy", "pydantic", "torch", "tvm", "yaml"}),
        ("edgec.cli.main", {"numpy", "pydantic", "torch", "tvm", "yaml"}),
        ("edgec.pipeline.plan", {"torch", "tvm", "transformers"}),
        ("edgec.pipeline.plan_generic", {"onnx", "torch", "tvm", "transformers"}),
        ("edgec.pipeline.run", {"torch", "tvm", "transformers"}),
    ],
)
def test_heavy_packages_are_not_loaded(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*(set({sorted(absent)!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
