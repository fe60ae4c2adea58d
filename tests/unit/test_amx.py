"""When AMX is emulated: where nothing else is missing, and this machine can do it."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgec.cli.describe import quality_lines
from edgec.errors import ToolchainError
from edgec.pipeline import stage_specs
from edgec.standins import Requirements, amx, native, toolbox
from edgec.target import host, load_target

if TYPE_CHECKING:
    from collections.abc import Sequence

TILES = ("amx_tile", "amx_int8", "amx_bf16")
CPU = frozenset({"avx2", "fma", "avx512f"})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An x86-64 machine without AMX, with a compiler."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(host, "cpu_features", lambda: CPU)
    monkeypatch.setattr(native, "cpu_features", lambda: CPU)
    monkeypatch.setattr(toolbox, "cc", lambda: "/usr/bin/cc")


def test_amx_alone_is_emulated() -> None:
    assert amx.emulated(TILES) == sorted(TILES)
    assert amx.emulated(["amx_bf16"]) == ["amx_bf16"]
    assert amx.emulated([]) == []
    assert amx.emulated([*TILES, "avx512_vnni"]) == []


def test_nothing_is_emulated_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise ToolchainError("there is no C compiler")

    monkeypatch.setattr(toolbox, "cc", none)
    assert amx.emulated(TILES) == []
    assert amx.unavailable() == "there is no C compiler"
    with pytest.raises(ToolchainError, match="no C compiler; verify the library on a machine"):
        amx.install()


def test_nothing_is_emulated_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"avx2"}))
    assert amx.unavailable().endswith("this one lacks: fma")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "x86-64 processors under Linux only" in amx.unavailable()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "x86-64 processors under Linux only" in amx.unavailable()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the stand-in did: installed the handler, and the features that it had checked."""
    did: list[Any] = []

    def load(
        _library: Path, _weights: Path, features: Sequence[str], *_rest: Any, **_more: Any
    ) -> None:
        did.append(sorted(features))

    monkeypatch.setattr(native, "load_engine", load)
    monkeypatch.setattr(amx, "install", lambda: did.append("installed"))
    return did


@pytest.mark.parametrize(
    ("needed", "done"),
    [
        (("avx512f", *TILES), ["installed", ["avx512f"]]),
        (("avx2", "avx512f"), [["avx2", "avx512f"]]),
        (("avx512_vnni", "amx_tile"), [["amx_tile", "avx512_vnni"]]),
        ((), [[]]),
    ],
    ids=["amx", "nothing", "more", "none needed"],
)
def test_the_stand_in_emulates_what_is_missing(
    opened: list[Any], needed: tuple[str, ...], done: list[Any]
) -> None:
    native.open_engine(Path("lib"), Path("weights"), Requirements("x86_64", needed))
    assert opened == done


def test_a_processor_with_amx_runs_the_library_itself(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "cpu_features", lambda: CPU | set(TILES))
    native.open_engine(Path("lib"), Path("weights"), Requirements("x86_64", TILES))
    assert opened == [sorted(TILES)]


def test_the_plan_and_the_report_say_what_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("x86-64-amx")
    monkeypatch.setattr(stage_specs, "missing_features", lambda _target: sorted(TILES))
    inputs = stage_specs.verify_spec(target, "edgec.stages.verify", {}, {}, ()).inputs
    assert inputs["standin.missing_features"] == []
    assert inputs["standin.emulated_features"] == sorted(TILES)
    json.dumps(inputs)
    monkeypatch.setattr(stage_specs, "missing_features", lambda _target: ["amx_tile", "avx512f"])
    inputs = stage_specs.verify_spec(target, "edgec.stages.verify", {}, {}, ()).inputs
    assert inputs["standin.missing_features"] == ["amx_tile", "avx512f"]
    assert inputs["standin.emulated_features"] == []
    lines = quality_lines({"verification": {"ran": True, "emulated": ["amx_bf16", "amx_tile"]}})
    assert ("verified", "with amx_bf16, amx_tile emulated") in lines
