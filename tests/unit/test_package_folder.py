"""Packages are written whole or not at all, and never over what others have put there."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from package_fakes import digests, phone_artifact

from edgec.errors import BuildError
from edgec.files import digest_json
from edgec.packaging import folder
from edgec.packaging.content import Content
from edgec.packaging.folder import MANIFEST, check_replaceable, package_manifest, write_package
from edgec.packaging.package import plan_package
from edgec.progress import Silent


def content(text: str = "one") -> Content:
    made = Content()
    made.add("a.txt", text)
    made.add("sub/run.sh", "#!/bin/sh\n", executable=True)
    return made


def write(place: Path, text: str = "one") -> None:
    made = content(text)
    write_package(place, made, package_manifest(made, {}), Silent())


def test_files_digests_and_modes(tmp_path: Path) -> None:
    place = tmp_path / "new/package"
    write(place)
    manifest = json.loads((place / MANIFEST).read_text())
    found = digests(place)
    del found[MANIFEST]
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == found
    digest = manifest.pop("digest")
    assert digest == digest_json(manifest)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")]}
    assert modes == {
        "package": 0o755,
        "sub": 0o755,
        "a.txt": 0o644,
        "run.sh": 0o755,
        MANIFEST: 0o644,
    }


def test_equal_artifacts_give_equal_packages(tmp_path: Path) -> None:
    for number in (1, 2):
        artifact = phone_artifact(tmp_path / f"{number}/toy")
        package = plan_package([artifact], urls={}, bundle=False, delivery="on-demand")
        package.write(tmp_path / f"package{number}")
    assert digests(tmp_path / "package1") == digests(tmp_path / "package2")


def test_a_package_is_replaced(tmp_path: Path) -> None:
    place = tmp_path / "package"
    write(place)
    (place / "sub/run.sh").unlink()  # what is missing is no loss
    write(place, "two")
    assert (place / "a.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    place = tmp_path / "package"
    (place / "empty").mkdir(parents=True)
    write(place)
    assert sorted(digests(place)) == ["a.txt", MANIFEST, "sub/run.sh"]


def test_what_others_have_written_stays(tmp_path: Path) -> None:
    place = tmp_path / "package"
    write(place)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(BuildError, match=r"notes\.txt was not written by edgec package"):
        write(place, "two")
    (place / "notes.txt").unlink()
    (place / "a.txt").write_text("ONE")
    with pytest.raises(BuildError, match=r"a\.txt has been changed since"):
        write(place, "two")
    assert (place / "a.txt").read_text() == "ONE"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_a_manifest_that_was_edited_counts_for_nothing(tmp_path: Path) -> None:
    place = tmp_path / "package"
    write(place)
    manifest = json.loads((place / MANIFEST).read_text())
    (place / "notes.txt").write_text("mine")
    manifest["files"]["notes.txt"] = {"bytes": 4, "sha256": digests(place)["notes.txt"]}
    (place / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BuildError, match="was not written by edgec package"):
        check_replaceable(place)


@pytest.mark.parametrize("text", ["{", "[]", '{"digest": 1}', "\x00"])
def test_a_damaged_manifest_is_none(tmp_path: Path, text: str) -> None:
    place = tmp_path / "package"
    write(place)
    (place / MANIFEST).write_text(text)
    with pytest.raises(BuildError, match=r"a\.txt was not written by edgec package"):
        check_replaceable(place)


def test_links_and_files_are_not_folders(tmp_path: Path) -> None:
    write(tmp_path / "package")
    (tmp_path / "link").symlink_to("package")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "file").write_text("x")
    for name in ("link", "broken", "file"):
        with pytest.raises(BuildError, match="is not a folder"):
            check_replaceable(tmp_path / name)
    place = tmp_path / "package"
    (place / "a.txt").unlink()
    (place / "a.txt").symlink_to("/etc/hostname")
    with pytest.raises(BuildError, match=r"a\.txt has been changed since"):
        check_replaceable(place)


def test_a_source_that_changes_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"1234")
    made = Content()
    made.add_copy("w", source, 4, "0" * 64)
    with pytest.raises(BuildError, match="differ from the manifest"):
        write_package(tmp_path / "new/package", made, package_manifest(made, {}), Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_full_disk_is_named_and_the_old_package_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "package"
    write(place)
    before = digests(place)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr(folder, "_write", fail)
    with pytest.raises(BuildError, match="No space left on device"):
        write(place, "two")
    assert digests(place) == before
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_what_a_killed_run_left_is_removed_and_a_live_ones_is_not(tmp_path: Path) -> None:
    dead = next(pid for pid in range(4_000_000, 5_000_000) if not folder.psutil.pid_exists(pid))
    left = tmp_path / f".package.tmp-{dead}-abc"
    live = tmp_path / f".package.tmp-{os.getpid()}-abc"
    similar = tmp_path / ".package.tmp-mine"
    for path in (left, live, similar):
        path.mkdir()
    write(tmp_path / "package")
    assert not left.exists()
    assert live.exists()
    assert similar.exists()


def test_a_folder_can_be_named_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "package/sub")
    write(Path(".."))
    assert (tmp_path / "package/a.txt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
