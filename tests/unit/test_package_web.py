"""A package for browsers: what WebLLM is told, and that the files are where it looks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from cli_calls import call
from package_fakes import phone_artifact
from web_fakes import CHAT, module, use_engine, web_artifact

from edgec.errors import BuildError, UsageError, VerificationError
from edgec.packaging import web_llm
from edgec.packaging.package import Package, plan_package
from edgec.packaging.web_config import FILES_BELOW

if TYPE_CHECKING:
    from edgec.artifacts.artifact import Artifact
    from edgec.packaging.content import Content

LEGAL_FEATURE = "shader-f16"


@pytest.fixture(autouse=True)
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "engine.js"
    engine.write_text("export class MLCEngine {}\n")
    use_engine(monkeypatch, engine)


@pytest.fixture
def toy(tmp_path: Path) -> Artifact:
    return web_artifact(tmp_path / "toy/webgpu")


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


def sri(raw: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(raw).digest()).decode()


def test_webllm_finds_every_file_where_it_looks(toy: Artifact) -> None:
    package = planned(toy)
    assert package.platform == "web"
    content = package.content
    (record,) = read(content, "app-config.json")["model_list"]
    below = f"{record['model']}/{FILES_BELOW}"
    assert record["model_id"] == "toy-q4f32_1"
    assert data(content, record["model_lib"]) == (toy.folder / "lib/model.wasm").read_bytes()
    for path in toy.model.iterdir():
        assert data(content, f"{below}/{path.name}") == path.read_bytes()
    for path in (record["model"], record["model_lib"]):
        assert not path.startswith(("/", "http", ".")), "the folder may be served below any path"


def test_digests_are_those_that_webllm_compares(toy: Artifact) -> None:
    content = planned(toy).content
    (record,) = read(content, "app-config.json")["model_list"]
    integrity = record["integrity"]
    assert integrity["config"] == sri((toy.model / "mlc-chat-config.json").read_bytes())
    assert integrity["model_lib"] == sri((toy.folder / "lib/model.wasm").read_bytes())
    assert integrity["tokenizer"] == {
        "tokenizer.json": sri((toy.model / "tokenizer.json").read_bytes())
    }
    # The form of WebLLM's own check: SRI_REGEX and the length of the decoded hash.
    assert re.fullmatch(r"sha256-[A-Za-z0-9+/]{43}=", integrity["model_lib"])


def test_the_page_knows_every_file_that_is_loaded_and_no_other(toy: Artifact) -> None:
    content = planned(toy).content
    (facts,) = read(content, "edgec-models.json")["models"]
    assert [file["path"] for file in facts["files"]] == [
        "mlc-chat-config.json",
        "tokenizer.json",
        "tensor-cache.json",
        "params_shard_0.bin",
    ]
    for file in [*facts["files"], facts["library"]]:
        path = file["path"]
        if not path.startswith("models/"):
            path = f"models/toy-q4f32_1/{FILES_BELOW}/{path}"
        raw = data(content, path)
        assert (file["bytes"], file["sha256"]) == (len(raw), hashlib.sha256(raw).hexdigest())
    everything = sum(file["bytes"] for file in facts["files"]) + facts["library"]["bytes"]
    assert facts["download_bytes"] == everything
    assert facts["description"] == "Says nothing. It is a test."
    assert facts["precision"] == "4-bit weights, 32-bit computation"
    assert facts["sampling"] == {"temperature": 0.0, "top_p": 1.0}


def test_models_are_loaded_by_their_manifests_where_it_is_asked_for(
    tmp_path: Path, toy: Artifact
) -> None:
    name = "mlc-model-manifest.json"
    plain, asked = planned(toy).content, planned(toy, model_manifest=True).content
    (before,) = read(plain, "app-config.json")["model_list"]
    (record,) = read(asked, "app-config.json")["model_list"]
    assert "model_manifest" not in before
    assert record == {**before, "model_manifest": name}
    # It is there either way, and the page loads and checks it only where WebLLM reads it.
    assert data(plain, f"{before['model']}/{FILES_BELOW}/{name}") == (toy.model / name).read_bytes()
    loaded = {}
    for content in (plain, asked):
        (facts,) = read(content, "edgec-models.json")["models"]
        loaded[content is asked] = [file["path"] for file in facts["files"]]
    assert loaded[True] == [name, *loaded[False]]
    old = web_artifact(tmp_path / "old", model_manifest=None)
    planned(old)
    with pytest.raises(VerificationError, match=f"has no {name}.*build the artifact again"):
        planned(old, model_manifest=True)


def test_how_a_model_is_talked_to(tmp_path: Path) -> None:
    begins = {"name": "completion", "system_prefix_token_ids": [1]}
    models: dict[str, dict[str, Any]] = {
        "plain": {},
        "begun": {"conv_template": {**CHAT, **begins}},
        "chat": {"conv_template": CHAT},
    }
    artifacts = [web_artifact(tmp_path / name, name, chat=chat) for name, chat in models.items()]
    listed = read(planned(*artifacts).content, "edgec-models.json")["models"]
    found = {facts["title"]: (facts["completion"], facts["prefix"]) for facts in listed}
    assert found == {"plain": (True, False), "begun": (True, True), "chat": (False, False)}


def test_features_are_those_of_the_kernels_own_text(tmp_path: Path) -> None:
    texts = {
        "none": ("fn kernel() {} // enable f16;", []),
        "half": ("enable f16;\nfn kernel() {}", [LEGAL_FEATURE]),
        "both": ("enable f16, subgroups;\nfn kernel() {}", [LEGAL_FEATURE, "subgroups"]),
    }
    artifacts = [
        web_artifact(tmp_path / name, name, wasm=module(text)) for name, (text, _) in texts.items()
    ]
    records = read(planned(*artifacts).content, "app-config.json")["model_list"]
    assert [record["required_features"] for record in records] == [
        features for _, features in texts.values()
    ]


@pytest.mark.parametrize(("largest", "weak"), [(2048, True), ((1 << 27) + 1, False)])
def test_the_largest_buffer(tmp_path: Path, *, largest: int, weak: bool) -> None:
    artifact = web_artifact(tmp_path / "toy", changes={"memory__largest_buffer_bytes": largest})
    (record,) = read(planned(artifact).content, "app-config.json")["model_list"]
    assert record["buffer_size_required_bytes"] == largest
    assert record["low_resource_required"] is weak
    assert record["vram_required_MB"] == 11.77


def test_weights_elsewhere_let_the_page_connect_elsewhere(toy: Artifact) -> None:
    package = planned(toy, urls={"toy-q4f32_1": "HF://me/toy"})
    (record,) = read(package.content, "app-config.json")["model_list"]
    assert record["model"] == "https://huggingface.co/me/toy"
    assert record["model_lib"] in package.content.entries
    assert not [path for path in package.content.entries if "params_shard" in path]
    assert b"connect-src 'self' https:;" in data(package.content, "index.html")
    here = planned(toy).content
    assert b"connect-src 'self';" in data(here, "index.html")
    both = planned(toy, urls={"toy-q4f32_1": "HF://me/toy"}, bundle=True).content
    assert read(both, "app-config.json") == read(here, "app-config.json")


def test_several_models_share_a_page(tmp_path: Path) -> None:
    artifacts = [
        web_artifact(tmp_path / "a", "toy", "q4f16_1"),
        web_artifact(tmp_path / "b", "toy", "q4f32_1"),
        web_artifact(tmp_path / "c", "other"),
    ]
    content = planned(*artifacts).content
    ids = [record["model_id"] for record in read(content, "app-config.json")["model_list"]]
    assert ids == ["toy-q4f16_1", "toy-q4f32_1", "other-q4f32_1"]
    assert b"<title>toy and other</title>" in data(content, "index.html")


def test_a_title_is_text(tmp_path: Path) -> None:
    artifact = web_artifact(tmp_path / "a", "toy", changes={"name": "<b>&"})
    assert b"<title>&lt;b&gt;&amp;</title>" in data(planned(artifact).content, "index.html")


def test_the_page_loads_nothing_that_is_not_in_the_package(toy: Artifact) -> None:
    content = planned(toy).content
    pattern = re.compile(
        r"""(?:from\s+|\bimport\s*\(?\s*|new URL\(\s*|\b(?:src|href)=)["']([^"'\s]+)["']"""
    )
    seen = []
    for path, _ in content:
        if not path.endswith((".html", ".js", ".css")) or path.startswith("web-llm/"):
            continue
        text = data(content, path).decode()
        assert "url(" not in text
        for found in pattern.findall(text):
            assert "://" not in found, (path, found)
            parts: list[str] = []
            for part in (*PurePosixPath(path).parent.parts, *PurePosixPath(found).parts):
                parts = parts[:-1] if part == ".." else [*parts, part]
            if found != "./":
                # app.js names the folder from which models.js takes the lists.
                where = parts[1:] if found.endswith(".json") and parts[0] == "lib" else parts
                assert "/".join(where) in content.entries, (path, found)
                seen.append("/".join(where))
    assert {"app.js", "style.css", "lib/worker.js", "web-llm/index.js", "app-config.json"} <= {
        *seen
    }


def test_packages_for_browsers_go_to_browsers_only(tmp_path: Path, toy: Artifact) -> None:
    phone = phone_artifact(tmp_path / "phone/android-adreno", "phone")
    with pytest.raises(UsageError, match=r"is for Android and .* for browsers"):
        planned(toy, phone)
    with pytest.raises(UsageError, match=r"is for browsers; write --app web, or name .* Android"):
        planned(toy, app="android")
    with pytest.raises(UsageError, match="is for Android; write --app android"):
        planned(phone, app="web")
    with pytest.raises(UsageError, match="no engine for Android reads model manifests"):
        planned(phone, model_manifest=True)
    with pytest.raises(UsageError, match="no app store delivers the files of web pages"):
        planned(toy, delivery="on-demand")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wasm": module(kind="vulkan")}, "it has no kernels for WebGPU"),
        ({"chat": {"tokenizer_files": ["vocab.json"]}}, "neither tokenizer.json nor"),
        ({"changes": {"model_lib": "to-y"}}, "the manifest names it 'to-y'"),
    ],
)
def test_what_browsers_cannot_load(tmp_path: Path, options: Any, message: str) -> None:
    artifact = web_artifact(tmp_path / "toy", **options)
    with pytest.raises(VerificationError, match=message):
        planned(artifact)


def test_a_library_without_a_name_is_refused(toy: Artifact) -> None:
    del toy.manifest["model_lib"]
    with pytest.raises(VerificationError, match="the manifest names it None"):
        planned(toy)


def test_the_command(tmp_path: Path, toy: Artifact) -> None:
    place = tmp_path / "site"
    called = call("package", "--app", "web", str(toy.folder), "--output", str(place))
    assert called.code == 0, called.err
    assert "toy-q4f32_1: library toy_q4f32_1" in called.err
    assert "http.server" in (place / "README.md").read_text()
    assert json.loads((place / "edgec-package.json").read_text())["platform"] == "web"
    again = call("package", str(toy.folder), "--output", str(place), "--dry-run")
    assert "would replace" in again.err
    assert call("package", "--app", "ios", str(toy.folder), "--output", str(place)).code != 0


def test_only_the_pinned_webllm_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    folder = tmp_path / "node_modules/@mlc-ai/web-llm"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib/index.js").write_text("code")
    (folder / "package.json").write_text('{"version": "0.2.86"}')
    monkeypatch.setattr(web_llm, "npm_folder", lambda *_: tmp_path / "node_modules")
    with pytest.raises(BuildError, match="LICENSE"):
        web_llm.web_llm_files()
    (folder / "LICENSE").write_text("terms")
    assert [file.name for file in web_llm.web_llm_files()] == ["index.js", "LICENSE"]
    (folder / "package.json").write_text('{"version": "0.2.87"}')
    with pytest.raises(BuildError, match=r"this is WebLLM 0\.2\.87, not 0\.2\.86"):
        web_llm.web_llm_files()


def test_the_lock_file_names_no_registry() -> None:
    folder = Path(web_llm.__file__).parent / "templates/web/npm"
    lock = json.loads((folder / "package-lock.json").read_text())
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    assert lock["packages"][""]["dependencies"] == wanted == {"@mlc-ai/web-llm": web_llm.VERSION}
    for name, package in lock["packages"].items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")
