"""Bad input ends in one clear sentence, the right exit code, and nothing written."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from caches import lent_cache_in
from edgec import resources
from edgec.cli.main import run
from edgec.target import load_target
from endtoend.command import edgec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

# This machine's own, for which other tests build the model, too.
TARGET = load_target("host").name


@dataclass
class Place:
    """A copy of the tinypy recipe and model that a case may damage."""

    root: Path
    options: list[str] = field(default_factory=list)

    @property
    def recipe(self) -> Path:
        return self.root / "recipes" / "tinypy.yaml"

    @property
    def model(self) -> Path:
        return self.root / "recipes" / "tinypy"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def edit(self, old: str, new: str) -> None:
        text = self.recipe.read_text()
        assert old in text
        self.recipe.write_text(text.replace(old, new, 1))

    def config(self, **changes: object) -> None:
        path = self.model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def set(self, *overrides: str) -> None:
        for override in overrides:
            self.options += ["-s", override]


def _header(path: Path) -> tuple[dict[str, dict[str, object]], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _write(path: Path, header: dict[str, dict[str, object]], body: bytes) -> None:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _rename_tensor(place: Place, old: str, new: str) -> None:
    path = place.model / "model.safetensors"
    header, body = _header(path)
    _write(path, {new if name == old else name: item for name, item in header.items()}, body)


def _poison(place: Place) -> None:
    path = place.model / "model.safetensors"
    header, body = _header(path)
    start = header["model.layers.3.mlp.down_proj.weight"]["data_offsets"][0]  # type: ignore[index]
    assert isinstance(start, int)
    nan = struct.pack("<e", float("nan"))
    _write(path, header, body[: start + 1024] + nan + body[start + 1026 :])


def _truncate(place: Place) -> None:
    path = place.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _lose_a_shard(place: Place) -> None:
    path = place.model / "model.safetensors"
    header, _ = _header(path)
    shards = dict.fromkeys(
        (name for name in header if name != "__metadata__"), "model-1.safetensors"
    )
    shards["model.norm.weight"] = "model-2.safetensors"
    path.rename(place.model / "model-1.safetensors")
    (place.model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def _only_pickle(place: Place) -> None:
    (place.model / "model.safetensors").rename(place.model / "pytorch_model.bin")


def _output_is_a_file(place: Place) -> None:
    place.out.write_text("")


def _output_is_foreign(place: Place) -> None:
    folder = place.out / "tinypy" / TARGET
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    place.options += ["--no-verify"]


def _cache_is_foreign(place: Place) -> None:
    place.cache.mkdir()
    (place.cache / "photos").write_text("mine")


# What is wrong: how to make it so, the exit code, and what the sentence must name.
CASES: dict[str, tuple[Callable[[Place], object], int, list[str]]] = {
    "typo in a field": (
        lambda p: p.edit("quantization:", "quantisation:"),
        2,
        ["tinypy.yaml:", "quantisation", "quantization"],
    ),
    "unknown scheme": (lambda p: p.edit("q4f32_1", "q5f32_1"), 2, ["tinypy.yaml:15:", "q4f32_1"]),
    "group size that isn't a multiple of 8": (
        lambda p: p.edit("group_size: 32", "group_size: 12"),
        2,
        ["tinypy.yaml:17:", "group_size", "8"],
    ),
    "group size that doesn't divide": (
        lambda p: p.set("quantization.group_size=48"),
        2,
        ["-s quantization.group_size=48", "model.embed_tokens.weight", "256"],
    ),
    "required field missing": (
        lambda p: p.edit("  source: tinypy", "  seed: 0"),
        2,
        ["model.source"],
    ),
    "chunk longer than the context": (
        lambda p: p.edit("prefill_chunk: 256", "prefill_chunk: 4096"),
        2,
        ["prefill_chunk", "1024"],
    ),
    "context longer than the model's": (
        lambda p: p.set("context.length=4096"),
        2,
        ["context.length", "4096", "1024"],
    ),
    "unknown target": (
        lambda p: p.options.extend(["-t", "x86-64-v5"]),
        2,
        ["x86-64-v5", "x86-64-v4"],
    ),
    "abstract target": (lambda p: p.options.extend(["-t", "x86-64"]), 2, ["x86-64", "abstract"]),
    "unknown export": (lambda p: p.set("exports=[coreml]"), 2, ["exports", "coreml"]),
    "tab in YAML": (
        lambda p: p.edit("context:\n  length", "context:\n\tlength"),
        2,
        ["tinypy.yaml:10", "tab"],
    ),
    "duplicate key": (
        lambda p: p.edit("method: rtn", "scheme: q0f32"),
        2,
        ["tinypy.yaml:16", "scheme"],
    ),
    "unknown override path": (
        lambda p: p.set("quantization.groups=64"),
        2,
        ["quantization.groups", "group_size"],
    ),
    "override that matches nothing": (
        lambda p: p.set("quantization.overrides=[{match: '*.experts.*', bits: 8}]"),
        2,
        ["experts", "match"],
    ),
    "recipe file missing": (lambda p: p.recipe.unlink(), 2, ["tinypy.yaml"]),
    "model folder missing": (lambda p: p.edit("source: tinypy", "source: tinypie"), 1, ["tinypie"]),
    "config.json missing": (lambda p: (p.model / "config.json").unlink(), 1, ["config.json"]),
    "config.json damaged": (
        lambda p: (p.model / "config.json").write_text('{"model_type": '),
        1,
        ["config.json"],
    ),
    "config field missing": (
        lambda p: p.config(hidden_size=None),
        1,
        ["config.json", "hidden_size"],
    ),
    "unsupported architecture": (
        lambda p: p.config(model_type="mamba2"),
        3,
        ["config.json", "mamba2", "llama"],
    ),
    "unsupported RoPE": (
        lambda p: p.config(
            rope_parameters={"rope_type": "proportional", "rope_theta": 1e4, "factor": 2.0}
        ),
        3,
        ["proportional", "llama3"],
    ),
    "unsupported activation": (
        lambda p: p.config(hidden_act="relu6"),
        3,
        ["hidden_act", "relu6", "silu"],
    ),
    "missing tensor": (
        lambda p: _rename_tensor(p, "model.norm.weight", "__metadata__x"),
        1,
        ["model.norm.weight"],
    ),
    "wrong shape": (
        lambda p: p.config(intermediate_size=1024),
        1,
        ["model.layers.0.mlp.gate_proj.weight", "768", "1024"],
    ),
    "truncated safetensors": (_truncate, 1, ["model.safetensors", "bytes"]),
    "missing shard": (_lose_a_shard, 1, ["model-2.safetensors"]),
    "NaN weights": (_poison, 1, ["model.layers.3.mlp.down_proj.weight", "row 0"]),
    "pickled weights": (_only_pickle, 1, ["pytorch_model.bin", "safetensors"]),
    "tokenizer damaged": (
        lambda p: (p.model / "tokenizer.json").write_text("{}"),
        1,
        ["recipes/tinypy/tokenizer.json"],
    ),
    "chat template that doesn't fit": (
        lambda p: p.set("chat.template=chatml"),
        2,
        ["chatml", "<|im_"],
    ),
    "evaluation text missing": (
        lambda p: p.set("quality.text=novel.txt"),
        2,
        ["novel.txt"],
    ),
    "hub without a network": (
        lambda p: p.edit("source: tinypy", "source: hf:edgec-tests/nothing@main"),
        1,
        ["edgec-tests/nothing", "HF_HUB_OFFLINE"],
    ),
    "output is a file": (_output_is_a_file, 2, ["out", "file"]),
    "output holds other files": (_output_is_foreign, 1, [TARGET, "--out"]),
    "cache holds other files": (_cache_is_foreign, 6, ["cache", "EDGEC_CACHE"]),
    "cache is a file": (lambda p: p.cache.write_text(""), 6, ["cache", "EDGEC_CACHE"]),
    "time limit": (
        lambda p: p.set("tuning.timeout_s=1"),
        1,
        ["compile", "1 s", "tuning.timeout_s"],
    ),
    "memory budget": (
        lambda p: p.set("budget.memory_mb=5"),
        5,
        ["budget.memory_mb", "KV cache", "5"],
    ),
    "size budget": (
        lambda p: (p.set("budget.artifact_mb=2"), p.options.append("--no-verify")),
        5,
        ["budget.artifact_mb", "2"],
    ),
    "quality gate": (
        lambda p: p.set("quality.max_kl=0.001"),
        5,
        ["max_kl", "0.001", "KL divergence"],
    ),
}


@pytest.fixture(scope="session")
def built_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The run's cache has the undamaged model's stages, so that late failures are reached quickly."""
    edgec(tmp_path_factory.mktemp("warm"), "build", "tinypy", "-t", TARGET)


LATE = {"memory budget", "size budget", "quality gate", "output holds other files"}


@pytest.mark.parametrize("name", list(CASES))
def test_bad_input(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    damage, code, words = CASES[name]
    place = Place(tmp_path)
    shipped = resources.folder("recipes")
    place.recipe.parent.mkdir()
    shutil.copyfile(shipped / "tinypy.yaml", place.recipe)
    shutil.copytree(shipped / "tinypy", place.model)
    if name in LATE:
        request.getfixturevalue("built_before")
        assert lent_cache_in(place.root) == place.cache
    place.options = ["-t", TARGET, "--out", str(place.out)]
    damage(place)
    if place.options.count("-t") > 1:
        place.options = place.options[2:]
    before = {path: path.stat().st_mtime_ns for path in place.out.rglob("*")}
    monkeypatch.setenv("EDGEC_CACHE", str(place.cache))
    # The hub's library reads its settings when it is imported, which another test may have done.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)

    assert run(["build", str(place.recipe), *place.options]) == code

    output = capfd.readouterr()
    assert output.out == ""
    message = output.err[output.err.index("error: ") :]
    print(f"\n{name} -> exit {code}\n{message.strip()}")
    assert "Traceback" not in output.err
    for word in words:
        assert word in message, message
    assert {path: path.stat().st_mtime_ns for path in place.out.rglob("*")} == before
    if place.cache.is_dir():
        assert not list(place.cache.glob("tmp/*"))
        assert not list(place.cache.glob("locks/*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [("size=3m", "No space left on device"), ("ro", "Read-only file system")],
    ids=["full disk", "read-only disk"],
)
@pytest.mark.usefixtures("built_before")
def test_a_disk_that_takes_nothing(tmp_path: Path, options: str, words: str) -> None:
    """A small or read-only file system, mounted where nobody else sees it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o {options} none {disk} || exit 99; "
        f"{sys.executable} -m edgec build tinypy -t {TARGET} --no-verify --out {disk}/out; "
        f"code=$?; ls -A {disk}; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("needs the right to mount: run as root")
    assert done.returncode == 1
    assert words in done.stderr
    assert f"error: {disk}/out" in done.stderr
    assert "--out" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "", "something was left on the disk"
    print(done.stderr[done.stderr.index("error: ") :])
