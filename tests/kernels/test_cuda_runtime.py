"""A CUDA library as it is deployed: loaded by TVM's own runtime for CUDA, without a GPU.

The machine code is compiled for a real one. Driver and runtime of CUDA are fake (``fake_cuda``):
they look at everything that TVM asks of them as the real ones would, and execute a kernel by its
text. So all is as on a GPU but the instructions themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec import resources
from edgec.artifacts.artifact import Artifact, open_artifact
from edgec.artifacts.layout import GOLDEN
from edgec.cli.main import run
from edgec.emitters.cuda_toolkit import find_toolkit
from edgec.errors import ToolchainError
from edgec.quantization.schemes import find_scheme
from edgec.standins import Requirements, emulator, toolbox
from edgec.verification.golden import make_golden
from edgec.verification.golden_file import write_golden
from kernels.fake_cuda import steps
from kernels.fake_cuda.device import DRIVER, RUNTIME
from numerics.tiny_models import save_random_model
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgec.runtime.forward import Logits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the library's host code is x86's"),
    *(needs(name) for name in ("clang++", "cxx", "lld")),
]

SOURCES = Path(__file__).parent / "fake_cuda"
SHIPPED = "tinypy"
SCHEME = "q4f16_1"
RECIPE = f"""
schema: edgec.recipe/v1
name: small
model: {{source: model}}
context: {{length: 128, prefill_chunk: 64, max_batch_size: 4}}
quantization: {{scheme: {SCHEME}}}
targets: [cuda]
quality: null
chat: {{template: completion}}
"""


@dataclass(frozen=True)
class Work:
    """An artifact for CUDA, what its library computes on the emulator, and a GPU to run it on."""

    folder: Path
    artifact: Artifact
    expected: dict[str, Logits]

    def child(
        self, *words: str, code: int = 0, broken: str = "", autoload: bool = True
    ) -> tuple[str, dict[str, Any]]:
        """Run something beside the fake GPU: what it prints, and what it asked of the GPU.

        Without ``autoload`` TVM doesn't load its module for CUDA when it is imported.
        """
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        settings = {
            "folder": str(self.folder),
            "library": str(self.artifact.library),
            "report": str(report),
            "broken": broken,
        }
        path = [str(SOURCES.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-m", "kernels.fake_cuda.child", json.dumps(settings), *words],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                "TVM_DEVICE_BACKEND_AUTOLOAD": str(int(autoload)),
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout, json.loads(report.read_text())

    def logits(
        self, standin: str = "", *, autoload: bool = True
    ) -> tuple[dict[str, Logits], dict[str, Any]]:
        """What the library computes on the fake GPU, and what was asked of that."""
        out = self.folder / "logits.npz"
        _, report = self.child("logits", standin, str(out), autoload=autoload)
        with np.load(out) as found:
            return dict(found), report


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    try:
        find_toolkit("12")
    except ToolchainError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("work")
    _compile(folder)
    with pytest.MonkeyPatch.context() as patch:
        artifact = _build(folder, patch)
        yield Work(folder, artifact, _on_the_emulator(artifact))


def _compile(folder: Path) -> None:
    """The fake driver and runtime."""
    versions = [f"-Wl,--version-script={SOURCES / 'runtime.map'}"]
    for source, name, flags in (("driver.c", DRIVER, []), ("runtime.c", RUNTIME, versions)):
        command = [toolbox.clang(), "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC"]
        out = ["-shared", f"-Wl,-soname,{name}", *flags, "-o", str(folder / name)]
        subprocess.run([*command, str(SOURCES / source), *out], check=True)


def _build(folder: Path, patch: pytest.MonkeyPatch) -> Artifact:
    """An artifact with machine code for one kind of GPU: four take four times as long."""
    from transformers import LlamaConfig  # noqa: PLC0415 - only this fixture needs it

    targets = folder / "targets"
    shutil.copytree(resources.folder("targets"), targets)
    profile = targets / "cuda.yaml"
    before = profile.read_text()
    after = before.replace("[sm_80, sm_86, sm_89, sm_90]", "[sm_80]")
    assert after != before
    profile.write_text(after)
    shipped = resources.folder("recipes") / SHIPPED
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        vocab_size=json.loads((shipped / "config.json").read_text())["vocab_size"],
        bos_token_id=0,
        eos_token_id=0,
    )
    save_random_model(config, folder / "model", seed=0)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shipped / name, folder / "model")
    (folder / "small.yaml").write_text(RECIPE)
    found = resources.folder
    patch.setattr(resources, "folder", lambda name: targets if name == "targets" else found(name))
    words = ("--no-verify", "--out", str(folder / "artifacts"))
    assert run(["--quiet", "build", str(folder / "small.yaml"), *words]) == 0
    return open_artifact(folder / "artifacts" / "small" / "cuda")


def _on_the_emulator(artifact: Artifact) -> dict[str, Logits]:
    """What the library computes there. It becomes the artifact's golden outputs, too."""
    engine = emulator.open_engine(
        artifact.library, artifact.model, Requirements("x86_64"), capacity=steps.CAPACITY
    )
    expected = steps.logits(engine)
    engine.clear()
    write_golden(artifact.golden, make_golden(engine, steps.PROMPT, find_scheme(SCHEME).dtype))
    # As the build would have listed them.
    manifest = artifact.folder / "manifest.json"
    data = json.loads(manifest.read_text())
    content = artifact.golden.read_bytes()
    data["files"][GOLDEN] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest.write_text(json.dumps(data))
    return expected


@pytest.fixture(scope="module")
def native(work: Work) -> tuple[dict[str, Logits], dict[str, Any]]:
    """The library on edgec's own runtime."""
    return work.logits()


def test_the_runtime_computes_what_the_emulator_does(
    work: Work, native: tuple[dict[str, Logits], dict[str, Any]]
) -> None:
    got, report = native
    _same(got, work.expected)
    assert report["bytes_to_device"] > work.artifact.manifest["memory"]["weights_bytes"]
    assert report["bytes_to_host"] >= sum(logits.nbytes for logits in got.values())
    ran = " ".join(report["launches"])
    kinds = {
        *("batch_prefill_ragged_kv", "batch_prefill_paged_kv", "batch_decode_paged_kv"),
        *("gemm_q4", "gemv_q4", "copy_single_page", "tir_kv_cache_transpose_append"),
        *("softmax_partials", "sort_tiles", "sample_top_p", "apply_bitmask_inplace"),
    }
    assert {kind for kind in kinds if kind in ran} == kinds


def test_edgec_loads_what_tvm_did_not(work: Work) -> None:
    """TVM says nothing where it fails to load its module for CUDA when it is imported."""
    got, _ = work.logits(autoload=False)
    _same(got, work.expected)


def test_the_stand_in_on_a_gpu_computes_the_same(
    work: Work, native: tuple[dict[str, Logits], dict[str, Any]]
) -> None:
    """Host functions run in a guest, and TVM's runtime launches what they ask for."""
    got, report = work.logits("gpu")
    _same(got, work.expected)
    assert report["launches"] == native[1]["launches"]


def _same(got: dict[str, Logits], expected: dict[str, Logits]) -> None:
    # The same kernels run on the same numbers.
    assert got.keys() == expected.keys()
    for name, logits in expected.items():
        assert np.isfinite(logits).all()
        np.testing.assert_array_equal(got[name], logits, name)


def test_bench_measures_the_gpu(work: Work) -> None:
    words = ("--json", "--prompt-tokens", "9", "--generate-tokens", "4", "--repeat", "1")
    text, report = work.child("edgec", "bench", str(work.artifact.folder), *words)
    measured = json.loads(text)
    assert measured["machine"]["device"] == "Fake GPU"
    assert measured["memory_copy_bytes_per_s"] > 0
    assert measured["decode_share_of_memory_copy"] > 0
    # A token to try the GPU out, then two rounds of a prompt and four tokens.
    assert report["launches"]["batch_decode_paged_kv_kernel"] == 9


def test_run_writes_text(work: Work) -> None:
    words = ("run", str(work.artifact.folder), "def main(", "--temperature", "0")
    text, report = work.child("edgec", *words, "--max-tokens", "5")
    assert text.strip()
    assert report["launches"]["batch_decode_paged_kv_kernel"] == 5


@pytest.mark.parametrize("command", ["bench", "verify"])
def test_a_gpu_that_no_code_is_for_is_refused(work: Work, command: str) -> None:
    words = {"bench": [], "verify": ["--device", "cuda", "--no-kernels"]}[command]
    text, _ = work.child(
        "edgec", command, str(work.artifact.folder), *words, "--json", code=4, broken="old"
    )
    assert "can't load the library" in json.loads(text)["what"]
    assert "edgec inspect" in json.loads(text)["remedy"]


def test_verify_runs_the_library_on_the_gpu(work: Work) -> None:
    # The machine code was compiled a moment ago.
    words = ("verify", str(work.artifact.folder), "--device", "cuda", "--no-kernels", "--json")
    text, report = work.child("edgec", *words)
    verified = json.loads(text)
    assert verified["standin"] == "gpu"
    assert max(verified["golden"]["artifact"].values()) <= verified["golden"]["tolerance"] / 10
    assert sum(report["launches"].values()) > 100


def test_verify_finds_a_gpu_that_errs(work: Work) -> None:
    words = ("verify", str(work.artifact.folder), "--device", "cuda", "--no-kernels", "--json")
    text, _ = work.child("edgec", *words, code=5, broken="halves")
    assert json.loads(text)["kind"] == "verification"
