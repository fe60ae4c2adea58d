"""tinypy as others would publish it, in GPTQ, AWQ and NF4 form, from the folder to the artifact."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy

from edgec import resources
from edgec.progress import Silent
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.stages import checkpoint, quantize
from edgec.stages.context import StageContext
from endtoend.command import edgec
from quantized_forms import AWQ, GPTQ, NF4_CONFIG, awq, four_bits, gptq, quantized_to, save

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

CONFIGS: dict[str, dict[str, Any]] = {"gptq": GPTQ, "awq": AWQ, "nf4": NF4_CONFIG}
RECIPE = """\
schema: edgec.recipe/v1
name: FORM
model:
  source: FORM
context:
  length: 256
  prefill_chunk: 128
  max_batch_size: 2
quantization:
  scheme: q4f16_1
  overrides:
    - match: model.embed_tokens.weight
      bits: 16
targets: [host]
quality:
  text: stdlib:tinypy/eval_modules.txt
  tokens: 1000
  window: 256
  max_kl: 1e-3
chat:
  template: completion
"""


def write(folder: Path, form: str, *, group: int = 32, symmetric: bool | None = None) -> None:
    """The model folder of tinypy with its linear layers quantized.

    Args:
        folder: where it goes.
        form: one of ``CONFIGS``.
        group: weights that share a scale.
        symmetric: whether there are no zero points; None: as is usual for the form.
    """
    symmetric = form == "gptq" if symmetric is None else symmetric
    original = resources.folder("recipes") / "tinypy"
    tensors = {}
    for name, weight in safetensors.numpy.load_file(original / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
        elif form == "nf4":
            tensors |= four_bits(name, weight, nested=256)
        elif form == "gptq":
            tensors |= gptq(module, quantized_to(weight, group=group, symmetric=symmetric))
        else:
            tensors |= awq(module, quantized_to(weight, group=group, symmetric=symmetric))
    config = json.loads((original / "config.json").read_text())
    sizes = {} if form == "nf4" else {"group_size": group}
    save(folder / form, {**CONFIGS[form], **sizes}, tensors, **config)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(original / name, folder / form / name)
    shutil.copyfile(original / "eval_modules.txt", folder / "eval_modules.txt")
    text = RECIPE.replace("FORM", form).replace("tinypy/eval_modules", "eval_modules")
    (folder / f"{form}.yaml").write_text(text)


def stages(folder: Path, form: str) -> Path:
    """The quantized checkpoint that the first stages make of a model folder."""
    outputs: dict[str, Path] = {}
    for name, stage in (("checkpoint", checkpoint), ("quantize", quantize)):
        outputs[name] = folder / name
        outputs[name].mkdir()
        stage.run(
            StageContext(
                out=outputs[name],
                inputs={
                    "quantization.scheme": "q4f16_1",
                    "quantization.method": "rtn",
                    "quantization.group_size": 32,
                    "quantization.overrides": [],
                },
                local={"source": form, "base": str(folder), "seed": 0, "threads": 2},
                parents=dict(outputs),
                progress=Silent(),
            )
        )
    return outputs["quantize"]


@pytest.mark.nightly
def test_awq_from_the_folder_to_the_artifact(tmp_path: Path) -> None:
    write(tmp_path, "awq", group=128)
    seen = edgec(tmp_path, "inspect", "awq")
    assert "already, by awq, 4 bits, groups of 128, with zero points" in seen
    assert "they fit the model" in seen
    assert "4 bits in groups of 32, with zero points       24" in edgec(
        tmp_path, "plan", "awq.yaml"
    )
    edgec(tmp_path, "build", "awq.yaml")
    (manifest,) = (tmp_path / "artifacts").rglob("manifest.json")
    report = json.loads((manifest.parent / "report.json").read_text())
    taken = report["taken_over"]
    assert (taken["exactly"], taken["matrices"], taken["with_zero_points"]) == (24, 24, 24)
    assert (taken["groups"], taken["stored_groups"]) == ([128], [32])
    # What it is compared with is the checkpoint itself: nothing was lost but the order of sums.
    assert report["quantizer"]["kl"] < 1e-9
    assert report["quantizer"]["max_logit_error"] < 1e-3
    # The artifact rounds activations to 8 bits.
    assert report["total"]["top1"] > 0.97
    assert report["total"]["kl"] < 1e-3


@pytest.mark.parametrize("form", CONFIGS)
def test_what_is_stored_is_near_the_original(tmp_path: Path, form: str) -> None:
    """Rounding twice costs at most the sum of both errors, 0.008 of the variance each."""
    write(tmp_path, form)
    original = safetensors.numpy.load_file(
        resources.folder("recipes") / "tinypy" / "model.safetensors"
    )
    with QuantizedCheckpoint(stages(tmp_path, form)) as stored:
        for layer in range(6):
            name = f"model.layers.{layer}.mlp.down_proj.weight"
            weight = original[name].astype(np.float32)
            values = stored.quantized(name, 0, len(weight)).dequantize()
            error = np.square(values - weight).mean() / np.square(weight).mean()
            assert 0.001 < error < 0.025, (name, error)
