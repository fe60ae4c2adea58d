"""Packages of Node.js are installed once, from a lock file, and what is missing is named."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edgec.errors import BuildError, ToolchainError
from edgec.standins import npm

# Stands for npm: "installs" what package.json names, and counts its runs.
NPM = """#!/bin/sh
echo run >> {log}
{then}
mkdir -p node_modules/thing && cp package.json node_modules/thing/
"""
FOLDERS = ("dawn", "webllm")


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path with the shell's tools alone, a cache of its own, and a manifest."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NODE", raising=False)
    npm.node.cache_clear()
    (tmp_path / "manifest").mkdir()
    for name in (npm.MANIFEST, npm.LOCK):
        (tmp_path / "manifest" / name).write_text("{}")
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def fake_npm(world: Path, then: str = "") -> Path:
    program(world / "bin" / "npm", NPM.format(log=world / "log", then=then))
    return world / "log"


def test_packages_are_installed_once(world: Path) -> None:
    log = fake_npm(world)
    folder = npm.npm_folder("things", world / "manifest")
    assert (folder / "thing" / npm.MANIFEST).read_text() == "{}"
    assert npm.npm_folder("things", world / "manifest") == folder
    assert log.read_text() == "run\n"
    assert not [path for path in folder.parents[1].iterdir() if path.name.startswith(".")]


def test_another_lock_file_is_another_folder(world: Path) -> None:
    log = fake_npm(world)
    first = npm.npm_folder("things", world / "manifest")
    (world / "manifest" / npm.LOCK).write_text('{"a": 1}')
    assert npm.npm_folder("things", world / "manifest") != first
    assert log.read_text() == "run\nrun\n"


def test_a_failed_installation_leaves_nothing(world: Path) -> None:
    fake_npm(world, "echo 'npm error code ENOTFOUND' >&2; echo 'npm error no host x' >&2; exit 1")
    with pytest.raises(ToolchainError, match=r"^things: npm can't install it \(no host x\); make"):
        npm.npm_folder("things", world / "manifest")
    assert not [path for path in (world / "cache").rglob("*") if path.is_file()]
    fake_npm(world)
    npm.npm_folder("things", world / "manifest")


def test_files_that_contradict_each_other_are_our_mistake(world: Path) -> None:
    fake_npm(world, "echo 'npm error package.json and lock are not in sync' >&2; exit 1")
    with pytest.raises(BuildError, match=r"package-lock\.json differ"):
        npm.npm_folder("things", world / "manifest")


def test_missing_files_and_programs_are_named(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="can't be read: No such file"):
        npm.npm_folder("things", world / "elsewhere")
    monkeypatch.setenv("PATH", str(world / "bin"))
    with pytest.raises(ToolchainError, match=r"no npm, which installs things; install Node\.js"):
        npm.npm_folder("things", world / "manifest")
    with pytest.raises(ToolchainError, match=r"there is no Node\.js; install Node\.js 20"):
        npm.node()


@pytest.mark.parametrize(("says", "accepted"), [("v20.1.0", True), ("v18.19.1", False)])
def test_an_old_node_is_refused(
    says: str, accepted: bool, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(world / "bin" / "mynode", f"#!/bin/sh\necho {says}\n")
    monkeypatch.setenv("NODE", "mynode")
    if accepted:
        assert npm.node() == str(world / "bin" / "mynode")
    else:
        with pytest.raises(ToolchainError, match=r"mynode is version v18\.19\.1; install"):
            npm.node()


def test_a_named_node_that_isnt_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE", "no-such-node")
    with pytest.raises(ToolchainError, match="NODE names 'no-such-node', which is no program"):
        npm.node()


@pytest.mark.parametrize("name", FOLDERS)
def test_lock_files_name_digests_and_no_addresses(name: str) -> None:
    folder = Path(npm.__file__).parent / name / "npm"
    wanted = json.loads((folder / npm.MANIFEST).read_text())["dependencies"]
    text = (folder / npm.LOCK).read_text()
    packages = json.loads(text)["packages"]
    assert "resolved" not in text
    assert "registry" not in text
    for package, version in wanted.items():
        assert packages[f"node_modules/{package}"]["version"] == version
    assert all("integrity" in entry for path, entry in packages.items() if path)
