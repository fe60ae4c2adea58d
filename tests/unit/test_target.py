from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec import resources
from edgec.errors import ToolchainError, UsageError
from edgec.standins import list_standins
from edgec.target import (
    Target,
    cpu_features,
    host,
    list_targets,
    load_profile,
    load_target,
    missing_features,
    resolve_host,
    summaries,
)

if TYPE_CHECKING:
    from pathlib import Path

BASE = """\
schema: edgec.target/v1
name: base
abstract: true
description: |
  The base
  of all.
platform: cpu
tvm: {kind: llvm, mtriple: x86_64-linux-gnu, mcpu: base, mattr: [+a], opt-level: 3}
vector_bits: 128
cpu_features: [sse2]
layout: mlc
standin: native
limits: {max_threads: 8}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of targets, in the current folder so that messages show short paths."""
    targets = tmp_path / "targets"
    targets.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path / name)
    return targets


def write(folder: Path, name: str, text: str) -> None:
    header = "" if text.startswith("schema:") else f"schema: edgec.target/v1\nname: {name}\n"
    (folder / f"{name}.yaml").write_text(f"{header}{text}\n", encoding="utf-8")


def problem(name: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_target(name)
    return str(caught.value)


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for /proc/cpuinfo on an x86 machine; write to it what the CPU has."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(host, "_CPUINFO", path)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return path


def flags(name: str) -> str:
    return " ".join(load_profile(name).cpu_features)


def test_every_target_loads() -> None:
    names = list_targets(abstract=True)
    assert names == sorted(path.stem for path in resources.folder("targets").glob("*"))
    for name in names:
        profile = load_profile(name)
        assert profile.name == name
        assert profile.description
        first_line = (resources.folder("targets") / f"{name}.yaml").read_text().splitlines()[0]
        assert first_line == "# yaml-language-server: $schema=../docs/schemas/target.schema.json"
    bases = {"android", "android-opencl", "cuda-base", "jetson", "x86-64"}
    assert set(names) - set(list_targets()) == bases


@pytest.mark.parametrize("name", list_targets())
def test_every_target_says_what_verifying_and_linking_need(name: str) -> None:
    target = load_target(name)
    assert target.architecture in {"x86_64", "aarch64", "wasm32"}
    assert target.standin in list_standins()
    assert target.library.forms
    if target.tvm["kind"] != "llvm":
        assert {"max_threads", "max_shared_memory_bytes", "max_argument_bytes"} <= set(
            target.limits
        )
        threads = target.tvm.get("max_threads_per_block", target.tvm.get("max_num_threads"))
        assert target.limits["max_threads"] <= int(str(threads))
    if "android" in target.triple:
        assert target.library.page_bytes == 16384
    if target.standin == "qemu":
        assert target.standin_cpu


def test_the_x86_targets() -> None:
    v3, v4, amx = (load_target(f"x86-64-{level}") for level in ("v3", "v4", "amx"))
    assert v3.tvm == {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"}
    assert v4.tvm["mattr"] == ["+avx512vnni"]
    assert amx.tvm["mcpu"] == "x86-64-v4"
    assert (v3.vector_bits, v4.vector_bits, amx.vector_bits) == (256, 512, 512)
    assert amx.lineage == ("x86-64", "x86-64-v3", "x86-64-v4", "x86-64-amx")
    assert {"sse2", "avx2", "fma", "f16c", "bmi2", "abm"} <= set(v3.cpu_features)
    assert set(v4.cpu_features) > set(v3.cpu_features)
    assert set(amx.cpu_features) - set(v4.cpu_features) == {
        "avx512_bf16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
    }


@pytest.mark.parametrize("name", ["x86-64-v3-vnni", "x86-64-v4", "x86-64-amx"])
def test_each_llvm_feature_is_also_required_of_the_cpu(name: str) -> None:
    target = load_target(name)
    spelled = {feature.replace("_", "") for feature in target.cpu_features}
    attributes = target.tvm["mattr"]
    assert isinstance(attributes, list)
    for attribute in attributes:
        assert str(attribute)[1:].replace("-", "") in spelled


def test_extending_replaces_merges_adds_and_takes_away(folder: Path) -> None:
    write(folder, "base", BASE)
    write(
        folder,
        "leaf",
        "extends: base\n"
        "tvm: {mcpu: leaf, mattr: [+b], opt-level: null}\n"
        "vector_bits: null\n"
        "cpu_features: [avx2]\n"
        "limits: {shared_memory_bytes: 4}\n",
    )
    assert load_target("leaf") == Target(
        name="leaf",
        lineage=("base", "leaf"),
        abstract=False,
        description="The base of all.",
        platform="cpu",
        tvm={"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "leaf", "mattr": ["+b"]},
        vector_bits=None,
        cpu_features=("avx2", "sse2"),
        layout="mlc",
        standin="native",
        limits={"max_threads": 8, "shared_memory_bytes": 4},
    )


def test_an_abstract_target_is_not_built_for(folder: Path) -> None:
    write(folder, "base", BASE)
    write(folder, "leaf", "extends: base")
    assert list_targets() == ["leaf"]
    expected = "base: this target is abstract, others extend it; build for one of leaf or host"
    assert problem("base") == expected
    assert load_profile("base").abstract


def test_an_abstract_target_may_leave_things_open(folder: Path) -> None:
    write(folder, "open", "abstract: true")
    write(folder, "leaf", "extends: open\nplatform: cpu\ntvm: {mcpu: x}\nlayout: mlc")
    assert load_profile("open").platform == ""
    assert problem("leaf") == (
        "targets/leaf.yaml:1:1: standin given neither here nor in a profile that this extends; "
        "add what is missing, or extend a profile that has it"
    )


def test_the_tvm_target_has_a_kind(folder: Path) -> None:
    write(folder, "leaf", "platform: cpu\ntvm: {mcpu: x}\nlayout: mlc\nstandin: native")
    assert "tvm.kind given neither here nor in" in problem("leaf")


def test_a_circle_is_named(folder: Path) -> None:
    for name, extends in (("a", "b"), ("b", "c"), ("c", "b")):
        write(folder, name, f"extends: {extends}")
    assert problem("a") == (
        "targets/c.yaml:3:1: extends: the profiles extend each other in a circle, b -> c -> b; "
        "let one of them extend nothing"
    )


def test_extending_nothing_that_exists(folder: Path) -> None:
    write(folder, "base", BASE)
    write(folder, "leaf", "extends: bases")
    assert problem("leaf") == (
        "targets/leaf.yaml:3:1: extends: there is no target 'bases'; "
        "did you mean base? (the targets are base and leaf)"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("platfrom: cpu", "targets/t.yaml:3:1: platfrom: unknown field; did you mean platform?"),
        ("platform: my-cpu", "targets/t.yaml:3:1: platform: 'my-cpu' isn't accepted here; write"),
        ("vector_bits: 500", "vector_bits: 500 is not a multiple of 64; write 448 or 512"),
        ("vector_bits: 512 bits", "'512 bits' isn't a whole number; write 512, without"),
        ("cpu_features: [AVX2]", "targets/t.yaml:3:16: cpu_features.0: 'AVX2' isn't accepted"),
        ("cpu_features: [fma, fma]", "cpu_features.1: 'fma' is listed twice"),
        ("cpu_features: fma", "cpu_features: 'fma' is given, and a list is needed; write [fma]"),
        ("limits: {max_threads: -1}", "limits.max_threads: -1 is too small; write at least 0"),
        ("limits: {max_threads: many}", "whole number; write for example 'max_threads: 1024'"),
        ("limits: {Max Threads: 1}", "limits.'Max Threads': 'Max Threads' isn't accepted here"),
        ("tvm: llvm", "tvm: 'llvm' is given, and a mapping of fields is needed; write for example"),
        ("tvm: {kind: 3}", "targets/t.yaml:3:7: tvm.kind: text is needed here; put it in quotes"),
        ("tvm: {mattr: +avx2}", "tvm.mattr: a list is needed here; write [+avx512vnni]"),
        ("tvm: {mattr: [avx2]}", "targets/t.yaml:3:15: tvm.mattr.0: 'avx2' neither adds nor takes"),
        ("abstract: yes", "abstract: 'yes' isn't true or false; write true or false"),
        ("extends: 3", "extends: 3 is a number, and text is needed; put it in quotes: '3'"),
    ],
)
def test_wrong_profiles_are_explained(folder: Path, text: str, expected: str) -> None:
    write(folder, "t", text)
    message = problem("t")
    assert expected in message
    assert message.startswith("targets/t.yaml:3:")


def test_a_profile_is_called_like_its_file(folder: Path) -> None:
    write(folder, "leaf", "schema: edgec.target/v1\nname: other")
    assert problem("leaf") == (
        "targets/leaf.yaml:2:1: name: the file is called leaf.yaml and says 'other'; "
        "write 'name: leaf', or rename the file"
    )
    write(folder, "host", "")
    with pytest.raises(UsageError, match="'host' always means this machine; choose another name"):
        load_profile("host")


@pytest.mark.parametrize("name", ["x86_64-v4", "X86-64-V4", "x86-64-v5"])
def test_unknown_targets_get_the_close_ones(name: str) -> None:
    message = problem(name)
    assert message.startswith(f"{name}: there is no target of this name; did you mean x86-64-v")


@pytest.mark.parametrize("name", ["", "zzz", "a\0b", "/etc/passwd"])
def test_unknown_targets_get_the_list(name: str) -> None:
    message = problem(name)
    assert "there is no target of this name; " in message
    assert "x86-64-v3" in message


@pytest.mark.parametrize("best", ["x86-64-v3", "x86-64-v3-vnni", "x86-64-v4", "x86-64-amx"])
def test_host_is_the_target_that_uses_most(cpu: Path, best: str) -> None:
    cpu.write_text(f"processor\t: 0\nflags\t\t: extra {flags(best)} more\n\n")
    assert resolve_host() == best
    assert load_target("host") == load_target(best)
    assert [summary.name for summary in summaries() if summary.is_host] == [best]


def test_a_feature_that_one_core_lacks_is_missing(cpu: Path) -> None:
    v4 = flags("x86-64-v4")
    cpu.write_text(f"flags : {v4}\n\nflags : {v4.replace('avx512_vnni', '')}\n")
    assert resolve_host() == "x86-64-v3"
    assert missing_features(load_target("x86-64-v4")) == ["avx512_vnni"]
    assert missing_features(load_target("x86-64-v3")) == []
    by_name = {summary.name: summary for summary in summaries()}
    assert by_name["x86-64-v4"].missing == ("avx512_vnni",)
    assert by_name["x86-64"].abstract


@pytest.mark.parametrize(
    ("machine", "line"), [("x86_64", "flags : sse2"), ("aarch64", "Features : asimd fp")]
)
def test_a_machine_without_a_target(
    cpu: Path, monkeypatch: pytest.MonkeyPatch, machine: str, line: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    cpu.write_text(line)
    with pytest.raises(ToolchainError, match=rf"no target fits this machine's CPU \({machine}\)"):
        load_target("host")


def test_another_architecture_never_fits(cpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.write_text(f"flags : {flags('x86-64-v4')}")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(ToolchainError, match="aarch64"):
        resolve_host()
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert resolve_host() == "x86-64-v4"


@pytest.mark.parametrize("text", [None, "", "model name: none\n"])
def test_a_system_that_does_not_tell_its_features(cpu: Path, text: str | None) -> None:
    if text is not None:
        cpu.write_text(text)
    with pytest.raises(ToolchainError, match=r"features are unknown.*name a target instead"):
        cpu_features()
    with pytest.raises(ToolchainError, match="name a target instead of host"):
        load_target("host")
    native = [summary for summary in summaries() if summary.standin == "native"]
    assert {summary.missing for summary in native} == {None}


@settings(deadline=None)
@given(st.text(max_size=100) | st.binary(max_size=200))
def test_any_file_is_a_target_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, raw: str | bytes
) -> None:
    root = tmp_path_factory.getbasetemp()
    (root / "targets").mkdir(exist_ok=True)
    text = raw.encode() if isinstance(raw, str) else raw
    (root / "targets" / "any.yaml").write_bytes(b"schema: edgec.target/v1\nname: any\n" + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resources, "folder", lambda name: root / name)
        with pytest.raises(UsageError):  # at best it lacks a platform
            load_target("any")
