"""``edgec package``: words in, a folder out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli_calls import call
from package_fakes import digests, phone_artifact

from edgec.errors import UsageError
from edgec.packaging.package import parse_urls

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def toy(tmp_path: Path) -> str:
    return str(phone_artifact(tmp_path / "artifacts/toy/android-adreno").folder)


def test_a_package_is_written_and_its_folder_printed(tmp_path: Path, toy: str) -> None:
    place = tmp_path / "package"
    called = call("package", toy, "--output", str(place))
    assert (called.code, called.out) == (0, f"{place}\n")
    assert "toy-q4f16_1: library toy_q4f16_1, 118 MiB of memory" in called.err
    assert "README.md" in called.err
    assert (place / "README.md").is_file()
    before = digests(place)
    assert call("package", toy, "--output", str(place)).code == 0
    assert digests(place) == before


def test_a_recipe_stands_for_its_artifact(tmp_path: Path, toy: str) -> None:
    root = str(tmp_path / "artifacts")
    called = call("package", "toy", "--out", root, "--output", str(tmp_path / "package"))
    assert called.code == 0, called.err


def test_a_dry_run_prints_sizes_and_writes_nothing(tmp_path: Path, toy: str) -> None:
    place = tmp_path / "package"
    called = call("package", toy, "--output", str(place), "--dry-run")
    assert called.code == 0
    lines = called.out.splitlines()
    assert lines[0].split() == ["SIZE", "FILE"]
    assert any(line.endswith("96 B  bundle/toy-q4f16_1/params_shard_0.bin") for line in lines)
    assert "would be written" in called.err
    assert not place.exists()
    call("package", toy, "--output", str(place))
    written = {path for path in digests(place) if path != "edgec-package.json"}
    assert {line.split()[-1] for line in lines[1:]} == written
    assert "would replace" in call("package", toy, "--output", str(place), "--dry-run").err


def test_json_says_what_was_written(tmp_path: Path, toy: str) -> None:
    place = tmp_path / "package"
    data = call("package", toy, "--output", str(place), "--json").data
    assert (data["schema"], data["platform"], data["written"]) == (
        "edgec.package/v1",
        "android",
        True,
    )
    assert data["models"][0]["model_lib"] == "toy_q4f16_1"
    assert data["files"] == json.loads((place / "edgec-package.json").read_text())["files"]
    dry = call("package", toy, "--output", str(place), "--json", "--dry-run").data
    assert (dry["written"], dry["replaced"], dry["digest"]) == (False, True, data["digest"])


def test_a_folder_of_others_is_refused_before_any_work(tmp_path: Path, toy: str) -> None:
    place = tmp_path / "package"
    place.mkdir()
    (place / "mine.txt").write_text("x")
    for more in ([], ["--dry-run"]):
        called = call("package", toy, "--output", str(place), *more)
        assert called.code == 1
        assert "mine.txt was not written by edgec package" in called.err
    assert digests(place).keys() == {"mine.txt"}


def test_weights_elsewhere(tmp_path: Path, toy: str) -> None:
    place = tmp_path / "package"
    called = call("package", toy, "--output", str(place), "--weights-url", "HF://me/toy")
    assert called.code == 0
    assert "at https://huggingface.co/me/toy" in called.err
    assert not list(place.rglob("params_shard_*"))


IDS = ["toy-q4f16_1", "other-q4f16_1"]


def test_urls_by_model() -> None:
    assert parse_urls(["HF://a/b"], IDS[:1]) == {"toy-q4f16_1": "HF://a/b"}
    words = ["toy-q4f16_1=https://x.org/a/", "other-q4f16_1=https://x.org/b"]
    assert parse_urls(words, IDS) == {
        "toy-q4f16_1": "https://x.org/a",
        "other-q4f16_1": "https://x.org/b",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["https://x.org/a"], "it isn't said whose weights these are; write MODEL=URL"),
        (["toi-q4f16_1=https://x.org/a"], "there is no model toi-q4f16_1"),
        (["toy-q4f16_1=https://x.org/a", "toy-q4f16_1=https://x.org/b"], "has two URLs"),
        (["toy-q4f16_1=http://x.org/a"], "apps download from https://"),
        (["toy-q4f16_1=https://x.org/a?token=1"], "without a query"),
        (["toy-q4f16_1=https://[x"], "apps download from https://"),
        (["toy-q4f16_1=HF://toy"], "a repository of the hub has an owner and a name"),
        (
            ["toy-q4f16_1=https://x.org/a/resolve/main"],
            "add /resolve/main/FILE to the address themselves; write https://x.org/a",
        ),
    ],
)
def test_urls_that_cannot_be_used(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parse_urls(words, IDS)
