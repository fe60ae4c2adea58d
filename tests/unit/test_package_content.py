"""What is in a package: libraries, weights, configuration files, modules."""

from __future__ import annotations

import json
import plistlib
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from package_fakes import AARCH64, X86_64, objects, phone_artifact

from edgec.errors import BuildError, EdgecError, UsageError, VerificationError
from edgec.libraries.ar import Archive
from edgec.libraries.members import Member
from edgec.libraries.open import open_library
from edgec.libraries.tarball import read_tar, write_tar
from edgec.packaging import android
from edgec.packaging.package import Package, plan_package

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact
    from edgec.packaging.content import Content

URL = "https://example.com/toy"


def planned(*artifacts: Artifact, **options: Any) -> Package:
    settings: dict[str, Any] = {"urls": {}, "bundle": False, "delivery": None, **options}
    return plan_package(artifacts, **settings)


def data(content: Content, path: str) -> bytes:
    entry = content.entries[path]
    if entry.data is not None:
        return entry.data
    assert entry.source is not None
    return entry.source.read_bytes()


def read(content: Content, path: str) -> Any:
    return json.loads(data(content, path))


@pytest.fixture
def android_toy(tmp_path: Path) -> Artifact:
    return phone_artifact(tmp_path / "toy/android-adreno")


@pytest.fixture
def ios_toy(tmp_path: Path) -> Artifact:
    return phone_artifact(tmp_path / "toy/ios-metal", target="ios-metal", ios=True, kernels="metal")


def other(tmp_path: Path, **more: Any) -> Artifact:
    return phone_artifact(tmp_path / "other/any", "other", **more)


def test_the_merged_library_has_every_object_and_its_symbols(
    tmp_path: Path, android_toy: Artifact
) -> None:
    content = planned(android_toy, other(tmp_path)).content
    raw = data(content, "lib/libmodel_android.a")
    archive = Archive.parse(raw, "merged")
    assert archive.flavour == "gnu"
    assert [member.name for member in archive.members] == [
        "toy_q4f16_1_lib0.o",
        "toy_q4f16_1_devc.o",
        "other_q4f16_1_lib0.o",
        "other_q4f16_1_devc.o",
    ]
    index = dict(archive.index)
    assert index["toy_q4f16_1___tvm_ffi__library_bin"] == 1
    assert index["other_q4f16_1___tvm_ffi__library_bin"] == 3
    assert index["__tvm_ffi_other_q4f16_1_main"] == 2
    path = tmp_path / "merged.a"
    path.write_bytes(raw)
    assert open_library(path, "other_q4f16_1_").host_functions == ("main",)


def test_the_ios_library_is_of_darwins_flavour_and_for_devices(ios_toy: Artifact) -> None:
    content = planned(ios_toy).content
    raw = data(content, "lib/libmodel_iphone.a")
    archive = Archive.parse(raw, "merged")
    assert archive.flavour == "darwin"
    assert dict(archive.index)["_toy_q4f16_1___tvm_ffi__library_bin"] == 1
    framework = "EdgecModels/ModelIPhone.xcframework"
    assert data(content, f"{framework}/ios-arm64/libmodel_iphone.a") == raw
    info = plistlib.loads(data(content, f"{framework}/Info.plist"))
    assert info["CFBundlePackageType"] == "XFWK"
    (library,) = info["AvailableLibraries"]
    assert library["SupportedArchitectures"] == ["arm64"]
    assert library["SupportedPlatform"] == "ios"
    assert "SupportedPlatformVariant" not in library
    assert f"{library['LibraryIdentifier']}/{library['LibraryPath']}" in {
        path.removeprefix(f"{framework}/") for path in content.entries
    }


def test_the_tars_are_the_artifacts_own(tmp_path: Path, android_toy: Artifact) -> None:
    content = planned(android_toy).content
    tar = (android_toy.folder / "lib/model.tar").read_bytes()
    assert data(content, "lib/toy_q4f16_1.tar") == tar
    assert len(read_tar(tar, "tar")) == 2


def test_mlcs_packager_finds_what_it_reads(tmp_path: Path, android_toy: Artifact) -> None:
    content = planned(android_toy, other(tmp_path), urls={"other-q4f16_1": "HF://me/other"}).content
    config = read(content, "mlc-package-config.json")
    assert config["device"] == "android"
    assert [entry["model"] for entry in config["model_list"]] == [
        "bundle/toy-q4f16_1",
        "HF://me/other",
    ]
    for entry in config["model_list"]:
        assert config["model_lib_path_for_prepare_libs"][entry["model_lib"]] in content.entries
        assert entry["estimated_vram_bytes"] == 123_456_789
        local = "://" not in entry["model"]
        assert entry["bundle_weight"] is local
        assert not local or f"{entry['model']}/tensor-cache.json" in content.entries
    assert not any("other-q4f16_1/" in path for path in content.entries)


def test_apps_find_what_they_read(tmp_path: Path, android_toy: Artifact, ios_toy: Artifact) -> None:
    urls = {"other-q4f16_1": "HF://me/other"}
    content = planned(android_toy, other(tmp_path), urls=urls).content
    config = read(content, "bundle/mlc-app-config.json")
    assert config == read(content, f"{android.MODULE}/src/main/assets/mlc-app-config.json")
    # The Android app takes model_url for granted.
    assert [entry["model_url"] for entry in config["model_list"]] == [
        "",
        "https://huggingface.co/me/other",
    ]
    config = read(planned(ios_toy).content, "bundle/mlc-app-config.json")
    assert config["model_list"] == [
        {
            "model_id": "toy-q4f16_1",
            "model_lib": "toy_q4f16_1",
            "model_path": "toy-q4f16_1",
            "estimated_vram_bytes": 123_456_789,
        }
    ]


@pytest.mark.parametrize("delivery", [None, "install-time", "fast-follow", "on-demand"])
def test_every_file_of_the_model_is_in_it_unchanged(
    android_toy: Artifact, ios_toy: Artifact, delivery: str | None
) -> None:
    for artifact in (android_toy, ios_toy):
        content = planned(artifact, delivery=delivery).content
        copied = {
            path.rsplit("/", 1)[1]: path for path in content.entries if "toy-q4f16_1/" in path
        }
        originals = sorted(path for path in artifact.model.iterdir())
        assert sorted(copied) == [path.name for path in originals]
        for path in originals:
            assert data(content, copied[path.name]) == path.read_bytes()


def test_models_that_are_downloaded_are_listed_with_digests(android_toy: Artifact) -> None:
    content = planned(android_toy, urls={"toy-q4f16_1": URL}).content
    (model,) = read(content, f"{android.MODULE}/src/main/assets/edgec-models.json")["models"]
    assert model["model_url"] == URL
    by_name = {file["path"]: file for file in model["files"]}
    entry = android_toy.manifest["files"]["model/params_shard_0.bin"]
    assert by_name["params_shard_0.bin"] == {"path": "params_shard_0.bin", **entry}
    manifest = data(content, f"{android.MODULE}/src/main/AndroidManifest.xml").decode()
    assert "android.permission.INTERNET" in manifest
    assert "resolve/main/" in data(content, "README.md").decode()


def test_weights_can_be_in_the_package_and_downloadable(android_toy: Artifact) -> None:
    package = planned(android_toy, urls={"toy-q4f16_1": URL}, bundle=True)
    assert "bundle/toy-q4f16_1/params_shard_0.bin" in package.content.entries
    (entry,) = read(package.content, "bundle/mlc-app-config.json")["model_list"]
    assert entry["model_url"] == URL


def shards_in_packs(content: Content) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(content.entries):
        if match := re.fullmatch(r"android/(\w+)/src/main/assets/[^/]+/(params.*)", path):
            found.setdefault(match[1], []).append(match[2])
    return found


def test_ai_packs_hold_whole_shards_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = phone_artifact(tmp_path / "toy", shards=[b"a" * 4000, b"b" * 4000, b"c" * 9000])
    small = sum(
        path.stat().st_size for path in artifact.model.iterdir() if "shard" not in path.name
    )
    monkeypatch.setattr(android, "_PACK_BYTES", small + 8000)
    content = planned(artifact, delivery="on-demand").content
    assert shards_in_packs(content) == {
        "toy_q4f16_1_weights_1": ["params_shard_0.bin", "params_shard_1.bin"],
        "toy_q4f16_1_weights_2": ["params_shard_2.bin"],
    }
    (model,) = read(content, f"{android.MODULE}/src/main/assets/edgec-models.json")["models"]
    for file in model["files"]:
        path = f"android/{file['pack']}/src/main/assets/toy-q4f16_1/{file['path']}"
        assert content.entries[path].sha256 == file["sha256"]
    for pack in ("toy_q4f16_1_weights_1", "toy_q4f16_1_weights_2"):
        script = data(content, f"android/{pack}/build.gradle.kts").decode()
        assert f'packName = "{pack}"' in script
        assert 'deliveryType = "on-demand"' in script
        # Nothing but weights may be in a pack.
        assert not [p for p in content.entries if p.startswith(f"android/{pack}/") and "java" in p]
    config = read(content, "mlc-package-config.json")
    assert f"{config['model_list'][0]['model']}/tensor-cache.json" in content.entries


def test_a_shard_that_no_pack_takes_is_refused(
    android_toy: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(android, "_PACK_BYTES", 50)
    with pytest.raises(BuildError, match="no engine reads a shard in pieces"):
        planned(android_toy, delivery="fast-follow")


def test_more_than_play_delivers_is_refused(
    tmp_path: Path, android_toy: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = planned(android_toy).models[0].nbytes
    monkeypatch.setattr(android, "_APP_BYTES", size + 10)
    planned(android_toy, delivery="fast-follow")
    with pytest.raises(BuildError, match="at most 4 GB"):
        planned(android_toy, other(tmp_path), delivery="fast-follow")


def test_plays_limits_are_kept_with_room_to_spare() -> None:
    assert android._PACK_BYTES < 1.5e9
    assert android._APP_BYTES < 4e9


def test_a_pack_begins_with_a_letter(tmp_path: Path) -> None:
    artifact = phone_artifact(tmp_path / "3b", "3b")
    content = planned(artifact, delivery="on-demand").content
    assert list(shards_in_packs(content)) == ["model_3b_q4f16_1_weights_1"]


@pytest.mark.parametrize(
    ("delivery", "policy"),
    [
        ("install-time", {"essential"}),
        ("fast-follow", {"prefetch"}),
        ("on-demand", {"onDemand"}),
    ],
)
def test_asset_packs_name_every_file(ios_toy: Artifact, delivery: str, policy: set[str]) -> None:
    content = planned(ios_toy, delivery=delivery).content
    pack = read(content, "background-assets/toy_q4f16_1.json")
    assert pack["assetPackID"] == "toy_q4f16_1"
    assert set(pack["downloadPolicy"]) == policy
    assert pack["platforms"] == ["iOS"]
    selected = {selector["file"] for selector in pack["fileSelectors"]}
    assert selected == {path for path in content.entries if path.startswith("bundle/toy-q4f16_1/")}
    listed = read(content, "background-assets/files.json")["files"]
    assert {file["path"] for file in listed} == selected
    for file in listed:
        entry = content.entries[file["path"]]
        assert (entry.nbytes, entry.sha256) == (file["bytes"], file["sha256"])
    (model,) = read(content, "EdgecModels/Sources/EdgecModels/edgec-models.json")["models"]
    assert model["asset_packs"] == ["toy_q4f16_1"]
    assert "EdgecModels/Sources/EdgecModels/AssetPacks.swift" in content.entries


def test_the_swift_package_names_what_is_there(ios_toy: Artifact) -> None:
    content = planned(ios_toy).content
    manifest = data(content, "EdgecModels/Package.swift").decode()
    assert manifest.startswith("// swift-tools-version:")
    assert '.iOS("16.0")' in manifest
    (path,) = re.findall(r'path: "(.*?)"', manifest)
    assert f"EdgecModels/{path}/Info.plist" in content.entries
    for target in re.findall(r'\.target\(\s*name: "(\w+)"', manifest):
        assert any(p.startswith(f"EdgecModels/Sources/{target}/") for p in content.entries)
    (resource,) = re.findall(r'\.copy\("(.*?)"\)', manifest)
    assert f"EdgecModels/Sources/EdgecModels/{resource}" in content.entries
    anchor = data(content, "EdgecModels/Sources/EdgecModelsAnchor/anchor.c").decode()
    assert re.findall(r'__asm__\("(\w+)"\)', anchor) == [
        "___tvm_ffi_toy_q4f16_1_main",
        "_toy_q4f16_1___tvm_ffi__library_bin",
    ]


def test_the_package_asks_for_the_newest_system_of_its_objects(
    tmp_path: Path, ios_toy: Artifact
) -> None:
    newer = other(tmp_path, ios=True, kernels="metal", system=(2, 17, 4), target="ios-metal")
    content = planned(ios_toy, newer).content
    assert '.iOS("17.4")' in data(content, "EdgecModels/Package.swift").decode()


def test_objects_for_the_simulator_are_refused(tmp_path: Path) -> None:
    artifact = other(tmp_path, ios=True, kernels="metal", system=(7, 16, 0), target="ios-metal")
    with pytest.raises(VerificationError, match="is not for iOS devices"):
        planned(artifact)


def test_the_gradle_modules_are_well_formed(android_toy: Artifact) -> None:
    for delivery in (None, "install-time", "fast-follow"):
        content = planned(android_toy, delivery=delivery).content
        manifest = ET.fromstring(  # noqa: S314 - our own
            data(content, f"{android.MODULE}/src/main/AndroidManifest.xml")
        )
        names = [
            node.get("{http://schemas.android.com/apk/res/android}name")
            for node in manifest.iter("uses-native-library")
        ]
        assert "libOpenCL.so" in names
        script = data(content, f"{android.MODULE}/build.gradle.kts").decode()
        assert 'api(project(":mlc4j"))' in script
        assert ("ai-delivery" in script) is (delivery == "fast-follow")
        for path, entry in content:
            if path.endswith((".kts", ".java", ".swift", ".c")):
                assert entry.data is not None
                assert entry.data.count(b"{") == entry.data.count(b"}"), path


def test_readmes_name_every_pack_and_module(android_toy: Artifact) -> None:
    content = planned(android_toy, delivery="fast-follow").content
    text = data(content, "README.md").decode()
    assert '":toy_q4f16_1_weights_1"' in text
    assert "@" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "**1." in text
    assert "**3." in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_lib": "another"}, "the manifest names it 'another'"),
        ({"platform": "linux"}, "packages are for phones"),
    ],
)
def test_a_manifest_that_says_otherwise_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(EdgecError, match=message):
        planned(phone_artifact(tmp_path / "toy", changes=change))


def test_other_machines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="packages are for phones"):
        planned(phone_artifact(tmp_path / "toy", machine=X86_64))
    assert planned(phone_artifact(tmp_path / "ok", machine=AARCH64)).platform == "android"


def test_an_artifact_without_objects_names_one_that_has_them(
    tmp_path: Path, android_toy: Artifact
) -> None:
    from artifact_fakes import make_artifact  # noqa: PLC0415 - only this test's

    desktop = make_artifact(tmp_path / "toy/x86-64-v3")
    with pytest.raises(UsageError, match=re.escape(f"name {android_toy.folder}")):
        planned(desktop)
    alone = make_artifact(tmp_path / "alone/x86-64-v3")
    with pytest.raises(UsageError, match="edgec build toy -t android-adreno"):
        planned(alone)


def test_two_models_of_one_name_are_refused(tmp_path: Path, android_toy: Artifact) -> None:
    twin = phone_artifact(tmp_path / "toy/android-mali", target="android-mali")
    with pytest.raises(UsageError, match="both called toy-q4f16_1"):
        planned(android_toy, twin)
    # Names that differ and become the same symbol.
    tar = objects("a_b_q4f16_1_")
    first = phone_artifact(tmp_path / "first", "a-b", tar=tar)
    second = phone_artifact(tmp_path / "second", "a.b", tar=tar)
    with pytest.raises(UsageError, match="both called a_b_q4f16_1"):
        planned(first, second)


def test_models_that_define_one_symbol_are_refused(tmp_path: Path) -> None:
    first = phone_artifact(tmp_path / "first", "first", strong=["helper"])
    second = phone_artifact(tmp_path / "second", "second", strong=["helper"])
    with pytest.raises(UsageError, match="both define helper"):
        planned(first, second)
    # A definition that gives way to another, as compiler-rt's, is no matter.
    assert planned(first, other(tmp_path)).models


def test_platforms_are_not_mixed(android_toy: Artifact, ios_toy: Artifact) -> None:
    with pytest.raises(UsageError, match=r"is for Android and .* for iOS"):
        planned(android_toy, ios_toy)


def test_a_damaged_artifact_is_refused(android_toy: Artifact) -> None:
    (android_toy.model / "params_shard_0.bin").write_bytes(b"\2" * 96)
    with pytest.raises(VerificationError, match="sha256"):
        planned(android_toy)


def test_an_artifact_without_its_index_is_refused(tmp_path: Path) -> None:
    artifact = phone_artifact(tmp_path / "toy")
    (artifact.model / "params_shard_0.bin").unlink()
    del artifact.manifest["files"]["model/params_shard_0.bin"]
    with pytest.raises(VerificationError, match=r"there is no params_shard_0\.bin"):
        planned(artifact)


def test_a_tar_without_a_blob_is_refused(tmp_path: Path) -> None:
    members = [
        member for member in read_tar(objects("toy_q4f16_1_"), "tar") if "devc" not in member.name
    ]
    artifact = phone_artifact(tmp_path / "toy", tar=write_tar([Member(*m) for m in members]))
    with pytest.raises(VerificationError, match="library of TVM"):
        planned(artifact)


def test_delivery_needs_weights(android_toy: Artifact) -> None:
    with pytest.raises(UsageError, match="no model's weights are in the package"):
        planned(android_toy, urls={"toy-q4f16_1": URL}, delivery="on-demand")


def test_what_a_developer_should_know_is_said(tmp_path: Path, android_toy: Artifact) -> None:
    assert planned(android_toy).warnings == ()
    on_cpu = other(tmp_path, kernels=None)
    (warning,) = planned(on_cpu).warnings
    assert "computes on the CPU" in warning
    report = {"schema": "edgec.report/v1", "verification": {"ran": False}}
    (on_cpu.folder / "report.json").write_text(json.dumps(report))
    assert planned(android_toy).models[0].was_run
    del on_cpu.manifest["files"]["report.json"]
