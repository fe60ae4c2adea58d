"""Stand-ins are found by name, and a processor that can't run a library is told so."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from edgec.artifacts.layout import REFERENCE_KERNELS
from edgec.errors import ToolchainError, UsageError, VerificationError
from edgec.pipeline import run
from edgec.runtime import load
from edgec.standins import Requirements, StandIn, find_standin, list_standins
from edgec.target import host
from edgec.target.processor import check_processor

LIBRARY = Path("lib/model.so")
AVX2 = frozenset({"avx2", "fma"})


def test_standins_are_found_by_name() -> None:
    assert {"native", "qemu", "emulator", "gpu"} <= set(list_standins())
    assert "toolbox" not in list_standins()
    wanted = inspect.signature(StandIn.open_engine).parameters.keys() - {"self"}
    for name in list_standins():
        module = importlib.import_module(f"edgec.standins.{name}")
        assert inspect.signature(module.open_engine).parameters.keys() == wanted, name


def test_nothing_sees_into_a_library_on_this_machine() -> None:
    native = find_standin("native")
    for asked in ({"checked": True}, {"observer": lambda _call, run: run()}):
        with pytest.raises(UsageError, match="choose the stand-in qemu"):
            native.open_engine(LIBRARY, Path("model"), Requirements("x86_64"), **asked)


def test_an_unknown_standin_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no stand-in 'nativ'.*native"):
        find_standin("nativ")


@pytest.mark.parametrize(
    ("architecture", "machine"), [("x86_64", "x86_64"), ("x86_64", "AMD64"), ("aarch64", "arm64")]
)
def test_spellings_of_an_architecture_are_equal(architecture: str, machine: str) -> None:
    check_processor(LIBRARY, architecture, [], machine=machine)


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ToolchainError, match="for aarch64 processors and this one is x86_64"):
        check_processor(LIBRARY, "aarch64", [], machine="x86_64")


def test_missing_features_are_named() -> None:
    check_processor(LIBRARY, "x86_64", ["avx2"], machine="x86_64", present=AVX2)
    with pytest.raises(ToolchainError, match="lacks: amx_int8, avx512f;") as caught:
        check_processor(
            LIBRARY,
            "x86_64",
            ["avx512f", "avx2", "amx_int8"],
            machine="x86_64",
            present=AVX2,
        )
    assert caught.value.exit_code == 4


def test_features_are_looked_up_only_if_any_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> frozenset[str]:
        raise ToolchainError("unknown")

    monkeypatch.setattr(host, "cpu_features", unknown)
    check_processor(LIBRARY, "x86_64", [], machine="x86_64")
    with pytest.raises(ToolchainError, match="unknown"):
        check_processor(LIBRARY, "x86_64", ["avx2"], machine="x86_64")


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every processor fits, weights are there, and threads stay as they are."""
    monkeypatch.setattr(load, "check_processor", lambda *_args, **_more: None)
    monkeypatch.setattr(load, "set_threads", lambda: 1)
    monkeypatch.setattr(load, "MappedWeights", lambda _folder, *, resident: resident)
    monkeypatch.setattr(load, "_kernels_for", lambda _library: None)
    monkeypatch.setattr(load, "Machine", lambda _library, _device: None)


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def engine(*_args: object) -> None:
        raise error

    monkeypatch.setattr(load, "Engine", engine)


@pytest.mark.usefixtures("loading")
def test_a_file_that_is_no_library_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, RuntimeError("Traceback...\nfile too short"))
    with pytest.raises(ToolchainError, match=r"^lib/model.so: .*\(file too short\); check"):
        load.load_engine(LIBRARY, Path("model"), [], "x86_64")


@pytest.mark.usefixtures("loading")
def test_errors_of_ours_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, VerificationError("damaged"))
    with pytest.raises(VerificationError, match="damaged"):
        load.load_engine(LIBRARY, Path("model"), [], "x86_64")


def test_a_standin_of_ones_own_needs_no_kernels_to_check(tmp_path: Path) -> None:
    # A library for this kind of CPU has none, and runs on other stand-ins than native too.
    assert run._reference_kernels("one_thread", tmp_path) is None
    file = tmp_path / REFERENCE_KERNELS
    file.touch()
    assert run._reference_kernels("emulator", tmp_path) == file
    assert run._reference_kernels("native", tmp_path) is None
