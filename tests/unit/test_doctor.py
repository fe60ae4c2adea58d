"""The checks of the doctor, in environments that lack something."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cli_calls import call

from edgec.cli.commands import doctor
from edgec.diagnosis import diagnose as diagnosis
from edgec.diagnosis import hub, machine, packages, storage, toolchain
from edgec.diagnosis.check import Check
from edgec.diagnosis.requirements import LIBRARIES, PYTHON, REFERENCE, RUNTIME
from edgec.errors import ToolchainError
from edgec.standins import amx

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


# The list of packages


def _declared(text: str) -> dict[str, str]:
    return dict(re.findall(r'"([\w-]+)([=>]=[\w.]+)"', text))


def test_the_requirements_are_those_of_the_project() -> None:
    text = PROJECT.read_text()
    start = text.index("dependencies = [")
    assert _declared(text[start : text.index("]", start)]) == {**RUNTIME, **LIBRARIES}
    reference = next(line for line in text.splitlines() if line.startswith("reference = ["))
    assert _declared(reference) == REFERENCE
    assert f'requires-python = ">={".".join(map(str, PYTHON))}"' in text


@pytest.mark.parametrize(
    ("version", "wanted", "enough"),
    [
        ("2.10.0", ">=2.9", True),
        ("2.8.9", ">=2.9", False),
        ("2.9", ">=2.9", True),
        ("3", ">=2.9.1", True),
        ("2.13.0+cpu", ">=2.5", True),
        ("2.5.0rc1", ">=2.5", True),
        ("0.1.14.post0", "==0.1.14.post0", True),
        ("0.1.14", "==0.1.14.post0", False),
        ("0.1.15", "==0.1.14.post0", False),
        ("0.1.14.post0+local", "==0.1.14.post0", True),
    ],
)
def test_versions_are_compared(version: str, wanted: str, enough: bool) -> None:
    assert packages.satisfies(version, wanted) is enough


def _install(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Everything is there in the wanted version, but for what is named."""
    wanted = {**RUNTIME, **LIBRARIES, **REFERENCE}
    changed = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(packages, "installed", lambda name: changed.get(name, wanted[name][2:]))


def test_everything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch)
    checks = [*packages.check_runtime_packages(), packages.check_libraries()]
    assert {check.state for check in [*checks, packages.check_reference()]} == {"ok"}


def test_the_wrong_runtime_is_named_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, apache_tvm_ffi="0.1.15", apache_tvm=None)
    tvm, ffi = packages.check_runtime_packages()
    assert (tvm.state, tvm.found) == ("missing", "not installed")
    assert (ffi.state, ffi.found, ffi.needed) == ("missing", "0.1.15", "== 0.1.14.post0")
    assert "'apache-tvm-ffi==0.1.14.post0'" in ffi.remedy


def test_missing_and_old_libraries_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, numpy="1.20", rich=None)
    check = packages.check_libraries()
    assert check.state == "missing"
    assert "numpy is 1.20, needed is >= 1.26; rich is not installed" in check.found
    assert "'numpy>=1.26' 'rich>=13.7'" in check.remedy


def test_a_missing_reference_is_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, torch=None)
    check = packages.check_reference()
    assert check.state == "warning"
    assert "torch is not installed" in check.found


def test_an_old_python_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages.check_python().state == "ok"
    monkeypatch.setattr(packages, "PYTHON", (99, 0))
    assert packages.check_python().state == "missing"


# The toolchain


def test_the_c_compiler_is_tried() -> None:
    check = toolchain.check_c_compiler()
    assert (check.state, check.remedy) == ("ok", "")


def _compiler(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'ld: cannot find crti.o' >&2; exit 1", "cannot find crti.o"),
        ("exit 3", "ended with code 3"),
        ('echo nonsense > "$5"', "can't be loaded"),
        ("exit 0", "can't be loaded"),
    ],
)
def test_a_compiler_that_does_not_work_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: str
) -> None:
    compiler = _compiler(tmp_path / "cc", script)
    monkeypatch.setattr(toolchain, "c_compiler", lambda: compiler)
    check = toolchain.check_c_compiler()
    assert check.state == "missing"
    assert found in check.found
    assert "CC" in check.remedy


def test_no_compiler_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise ToolchainError("no C compiler was found", remedy="install one")

    monkeypatch.setattr(toolchain, "c_compiler", none)
    check = toolchain.check_c_compiler()
    assert (check.state, check.found, check.remedy) == (
        "missing",
        "no C compiler was found",
        "install one",
    )


@pytest.mark.parametrize(
    ("code", "state", "found"),
    [
        ("print('9.9')", "ok", "version 9.9"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "missing", "SIGSEGV"),
        ("import no_such_module_of_ours", "missing", "No module named 'no_such_module_of_ours'"),
        ("raise SystemExit(7)", "missing", "code 7"),
    ],
)
def test_tvm_is_imported_in_a_child(
    monkeypatch: pytest.MonkeyPatch, code: str, state: str, found: str
) -> None:
    monkeypatch.setattr(toolchain, "_LOAD", code)
    check = toolchain.check_tvm_loads()
    assert check.state == state
    assert found in check.found


def test_an_import_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_LOAD", "import time; time.sleep(60)")
    monkeypatch.setattr(toolchain, "_TIME_LIMIT", 0.2)
    assert toolchain.check_tvm_loads().state == "missing"


# The machine


def test_this_machine_has_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "resolve_host", lambda: "x86-64-v3")
    check = machine.check_host()
    assert check.state == "ok"
    assert check.found.startswith("x86-64-v3 (")


def test_a_machine_without_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise ToolchainError("no target fits", remedy="name one")

    monkeypatch.setattr(machine, "resolve_host", none)
    check = machine.check_host()
    assert (check.state, check.remedy) == ("missing", "name one")


def test_a_target_that_does_not_run_here_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "missing_features", lambda _target: ["amx_int8", "amx_tile"])
    check = machine.check_target("x86-64-amx")
    assert check.state == "warning"
    assert "lacks amx_int8, amx_tile" in check.found
    assert ("verified with them emulated" in check.found) is not bool(amx.unavailable())
    monkeypatch.setattr(machine, "missing_features", lambda _target: [])
    assert machine.check_target("x86-64-amx").state == "ok"


def test_targets_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_target("x86-64").state == "missing"
    assert machine.check_target("x86-65").state == "missing"
    monkeypatch.setattr(
        machine, "load_target", lambda name: SimpleNamespace(name=name, platform="abacus")
    )
    assert "no emitter for abacus" in machine.check_target("x").found


def test_little_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=64 << 30, available=32 << 30)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: memory)
    assert machine.check_memory(()).state == "ok"
    limit = tmp_path / "memory.max"
    limit.write_text("max\n")
    assert machine.check_memory((limit, tmp_path / "none")).state == "ok"
    limit.write_text(f"{1 << 30}\n")
    check = machine.check_memory((limit,))
    assert check.state == "warning"
    assert "1.0 GiB of 1.0 GiB available" in check.found


# The cache


def test_the_cache_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "a/b"))
    check = storage.check_cache()
    assert check.state in ("ok", "warning")
    assert check.found.startswith(str(tmp_path / "a/b"))
    assert list(tmp_path.iterdir()) == []


def test_a_cache_with_foreign_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").touch()
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))
    check = storage.check_cache()
    assert check.state == "missing"
    assert "mine.txt" in check.found


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "a"))
    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
    check = storage.check_cache()
    assert check.state == "missing"
    assert "Permission denied" in check.found
    assert "EDGEC_CACHE" in check.remedy


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "a"))
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1 << 20))
    assert storage.check_cache().state == "warning"


# The hub


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert hub.check_hub().found.startswith("HF_TOKEN is not set")
    monkeypatch.setenv("HF_TOKEN", "a-secret")
    check = hub.check_hub()
    assert check.found.startswith("HF_TOKEN is set")
    assert "a-secret" not in repr(check)


@pytest.mark.parametrize(("value", "state"), [("1", "warning"), ("true", "warning"), ("0", "ok")])
def test_offline_is_a_warning(monkeypatch: pytest.MonkeyPatch, value: str, state: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert hub.check_hub().state == state


# All of it


def test_without_its_libraries_the_rest_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, psutil=None)
    names = [check.name for check in diagnosis.diagnose()]
    assert names == ["python", "apache-tvm", "apache-tvm-ffi", "libraries"]


def test_all_checks_run_and_nothing_heavy_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_LOAD", "print('0')")
    before = set(sys.modules)
    checks = list(diagnosis.diagnose(["x86-64-v3"]))
    assert {"C compiler", "target x86-64-v3", "memory", "cache", "reference", "hub"} <= {
        check.name for check in checks
    }
    assert not {"tvm", "torch", "transformers"} & (set(sys.modules) - before)


def _checks(*states: Any) -> Any:
    def diagnose(_targets: object) -> Iterator[Check]:
        for index, state in enumerate(states):
            yield Check(f"c{index}", state, "found", "needed", "do this")

    return diagnose


@pytest.mark.parametrize(
    ("states", "code", "summary"),
    [
        (["ok", "ok"], 0, "everything needed is there\n"),
        (["ok", "warning"], 0, "everything needed is there (1 warning)\n"),
        (["missing", "warning", "warning", "missing"], 4, "missing: c0, c3 (2 warnings)\n"),
    ],
)
def test_the_command_ends_with_the_right_code(
    monkeypatch: pytest.MonkeyPatch, states: list[str], code: int, summary: str
) -> None:
    monkeypatch.setattr(doctor, "diagnose", _checks(*states))
    done = call("doctor")
    assert done.code == code
    assert done.err == summary
    assert done.out.count("do this") == sum(state != "ok" for state in states)
    data = call("doctor", "--json")
    assert data.code == code
    assert data.data["ok"] is (code == 0)
    assert [check["state"] for check in data.data["checks"]] == states
