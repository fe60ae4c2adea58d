"""From what the user writes to an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from artifact_fakes import make_artifact

from edgec.artifacts import locate
from edgec.artifacts.locate import locate_artifact
from edgec.errors import ToolchainError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

HOST = "x86-64-v4"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locate, "resolve_host", lambda: HOST)
    return tmp_path


def found(name: str, root: Path) -> str:
    return locate_artifact(name, root).folder.relative_to(root.parent).as_posix()


def test_a_folder_is_itself(here: Path) -> None:
    make_artifact(here / "out/toy/any")
    assert found(str(here / "out/toy/any"), here / "out") == "out/toy/any"


def test_a_recipe_that_was_built_for_this_machine(here: Path) -> None:
    make_artifact(here / "out/tinypy/x86-64-v3")
    make_artifact(here / f"out/tinypy/{HOST}")
    assert found("tinypy", here / "out") == f"out/tinypy/{HOST}"
    assert found(str(here / "out/tinypy"), here / "out") == f"out/tinypy/{HOST}"


def test_the_only_target_is_taken_if_there_is_none_for_this_machine(here: Path) -> None:
    make_artifact(here / "out/tinypy/x86-64-v3")
    assert found("tinypy", here / "out") == "out/tinypy/x86-64-v3"


def test_several_targets_without_this_machine_have_to_be_named(here: Path) -> None:
    make_artifact(here / "out/tinypy/a")
    make_artifact(here / "out/tinypy/b")
    with pytest.raises(UsageError, match=f"none for {HOST}; name one of .*tinypy/a or .*tinypy/b"):
        locate_artifact("tinypy", here / "out")


def test_an_unknown_machine_is_no_obstacle(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise ToolchainError("unknown")

    monkeypatch.setattr(locate, "resolve_host", unknown)
    make_artifact(here / "out/tinypy/a")
    assert found("tinypy", here / "out") == "out/tinypy/a"


def test_a_recipe_that_is_not_built_says_how(here: Path) -> None:
    with pytest.raises(UsageError, match=r"has not been built .*; run: edgec build tinypy --out "):
        locate_artifact("tinypy", here / "out")


def test_a_name_of_neither_kind(here: Path) -> None:
    with pytest.raises(UsageError, match=r"neither an artifact nor a recipe.*did you mean tinypy"):
        locate_artifact("tinipy", here / "out")


def test_an_artifact_of_a_recipe_that_is_elsewhere_is_found_by_name(here: Path) -> None:
    make_artifact(here / f"out/mine/{HOST}")
    assert found("mine", here / "out") == f"out/mine/{HOST}"


def test_a_folder_that_only_shares_its_name_does_not_hide_the_recipe(here: Path) -> None:
    (here / "tinypy").mkdir()
    make_artifact(here / f"out/tinypy/{HOST}")
    assert found("tinypy", here / "out") == f"out/tinypy/{HOST}"


def test_a_path_to_a_folder_without_an_artifact(here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no artifact"):
        locate_artifact("./empty", here / "out")


def test_what_a_killed_build_left_is_no_artifact(here: Path) -> None:
    make_artifact(here / "out/tinypy/.x86-64-v3.tmp-1")
    with pytest.raises(UsageError, match="has not been built"):
        locate_artifact("tinypy", here / "out")
