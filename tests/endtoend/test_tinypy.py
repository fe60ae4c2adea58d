"""The shipped model, from recipe to text, as a user would do it."""

from __future__ import annotations

import filecmp
import json
import shutil
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from caches import cache_in, lent_cache_in
from edgec.artifacts.artifact import open_artifact
from edgec.runtime.generate import generate
from edgec.runtime.sampling import SamplingOptions
from edgec.runtime.session import open_session
from edgec.runtime.speculative import Speculation
from endtoend.command import edgec

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which tinypy was built for this machine, unquantized and in 4 bits."""
    folder = tmp_path_factory.mktemp("work")
    edgec(folder, "build", "tinypy")
    edgec(folder, "build", "tinypy", "-s", "quantization.scheme=q0f32", "--out", "exact")
    return folder


def _artifact(built: Path, root: str = "artifacts") -> Path:
    (manifest,) = (built / root).rglob("manifest.json")
    return manifest.parent


def _report(built: Path, root: str = "artifacts") -> dict[str, Any]:
    report: dict[str, Any] = json.loads((_artifact(built, root) / "report.json").read_text())
    return report


def test_the_unquantized_artifact_equals_pytorch(built: Path) -> None:
    report = _report(built, "exact")
    assert report["text"]["tokens"] == 2000
    assert report["total"]["top1"] == 1
    assert report["total"]["max_logit_error"] <= 1e-3
    for way in ("prefill", "chunked_prefill", "decode", "batch"):
        assert report["paths"][way] <= 1e-3, way
    assert report["paths"]["batch_size"] == 3


def test_the_loss_in_4_bits_is_the_quantizers(built: Path) -> None:
    report = _report(built)
    # Kernels on integers round activations to 8 bits, which costs a hundredth of what weights in 4 bits do.
    assert report["activations"]["kl"] <= 1e-3
    assert report["compiler"]["kl"] <= 1e-3
    assert report["compiler"]["top1"] >= 0.97
    assert report["total"]["kl"] == pytest.approx(report["quantizer"]["kl"], abs=1e-3)
    ratios = [report[section]["perplexity_ratio"] for section in ("total", "quantizer")]
    assert ratios[0] == pytest.approx(ratios[1], rel=5e-3)
    assert 0.001 < report["total"]["kl"] < 0.05


def test_equal_inputs_give_equal_bytes(built: Path, tmp_path: Path) -> None:
    """Another cache, another folder, another order of sets and dictionaries."""
    others = {"PYTHONHASHSEED": "7", "TVM_NUM_THREADS": "1", "EDGEC_CACHE": str(cache_in(tmp_path))}
    edgec(tmp_path, "build", "tinypy", **others)
    first, second = _artifact(built), _artifact(tmp_path)
    names = sorted(p.relative_to(first).as_posix() for p in first.rglob("*") if p.is_file())
    assert names == sorted(
        p.relative_to(second).as_posix() for p in second.rglob("*") if p.is_file()
    )
    _, differ, failed = filecmp.cmpfiles(first, second, names, shallow=False)
    assert not differ
    assert not failed


def test_it_writes_the_same_text_for_the_same_seed(built: Path) -> None:
    arguments = ("run", "tinypy", "def main():", "--max-tokens", "24", "--seed", "3")
    texts = {edgec(built, *arguments) for _ in range(2)}
    assert len(texts) == 1
    assert texts.pop().strip()


def test_greedy_text_is_what_the_reference_writes(built: Path) -> None:
    import torch  # noqa: PLC0415 - only this test needs it
    from tokenizers import Tokenizer  # noqa: PLC0415
    from transformers import LlamaForCausalLM  # noqa: PLC0415

    from edgec import resources  # noqa: PLC0415

    folder = resources.folder("recipes") / "tinypy"
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [0, *tokenizer.encode("class Config:").ids]
    for _ in range(24):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    result = json.loads(
        edgec(
            built,
            *("run", str(_artifact(built, "exact")), "class Config:", "--temperature", "0"),
            *("--max-tokens", "24", "--json"),
        )
    )
    assert result["token_ids"] == ids[-24:]


def test_guessed_tokens_are_those_of_single_steps(built: Path) -> None:
    """A thousand of them, in 4 bits, with activations rounded to 8: other bits anywhere would show."""
    import inspect  # noqa: PLC0415 - only this test reads source
    import textwrap  # noqa: PLC0415

    session = open_session(open_artifact(_artifact(built)))
    ids = session.tokenizer.encode(inspect.getsource(textwrap))
    speculation = Speculation()
    # Whatever the machine has to do meanwhile, passes pay.
    speculation.clock = count().__next__
    accepted = 0
    for start in range(0, 1000, 250):
        texts = []
        for wanted in (None, speculation):
            steps = list(
                generate(
                    session.engine,
                    session.tokenizer,
                    [0, *ids[start : start + 200]],
                    SamplingOptions(temperature=0),
                    max_tokens=256,
                    speculation=wanted,
                )
            )
            texts.append([step.id for step in steps])
        assert texts[0] == texts[1], start
        assert steps[-1].stats is not None
        assert steps[-1].stats.speculation is not None
        accepted += steps[-1].stats.speculation.accepted
    assert accepted > 250


def test_verify_repeats_the_check_without_torch(built: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch is hidden')\n")
    verified = json.loads(edgec(built, "verify", "tinypy", "--json", PYTHONPATH=str(tmp_path)))
    assert verified["schema"].startswith("edgec.verify/")


def test_a_damaged_artifact_is_refused(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(_artifact(built), copy)
    shard = copy / "model" / "params_shard_0.bin"
    data = bytearray(shard.read_bytes())
    data[12345] ^= 4
    shard.write_bytes(data)
    edgec(built, "verify", str(copy), code=5)


def test_bench_measures(built: Path) -> None:
    figures = json.loads(
        edgec(
            built,
            *("bench", "tinypy", "--prompt-tokens", "32", "--generate-tokens", "8"),
            *("--repeat", "2", "--json"),
        )
    )
    assert figures["schema"] == "edgec.bench/v1"


def test_the_manifest_says_what_the_library_needs(built: Path) -> None:
    manifest = open_artifact(_artifact(built)).manifest
    memory = manifest["memory"]
    assert memory["kv_cache_bytes"] == 2 * 6 * 2 * 64 * 4 * 1024
    assert (
        memory["total_bytes"]
        == memory["weights_bytes"] + memory["kv_cache_bytes"] + memory["workspace_bytes"]
    )
    assert "vm.builtin.paged_attention_kv_cache_create" in manifest["runtime"]["functions"]
    assert manifest["kernels"]["sources"].get("unscheduled", 0) == 0
    assert manifest["toolchain"]["distributions"]["apache-tvm"]["version"] == "0.27.0.post1"


@pytest.mark.nightly
def test_another_target_reuses_the_quantized_weights(built: Path, tmp_path: Path) -> None:
    cache = lent_cache_in(tmp_path)
    # Files are hashed once in each cache, and another test may have built for this target.
    edgec(tmp_path, "build", "tinypy", "--no-verify", EDGEC_CACHE=str(cache))
    shutil.rmtree(cache / "stages" / "compile")
    lines = edgec(
        built,
        *("build", "tinypy", "-t", "x86-64-v3", "--out", "v3", "--no-verify", "--json"),
        EDGEC_CACHE=str(cache),
    ).splitlines()
    started = {
        event["stage"] for line in lines if (event := json.loads(line))["event"] == "stage-started"
    }
    assert started == {"compile", "artifact"}
