"""Tiny generic models, and their stages run in this process: torch and TVM are loaded once."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

from edgec.artifacts.layout import REPORT
from edgec.pipeline.filedigests import FileDigests
from edgec.pipeline.plan_generic import plan_generic
from edgec.pipeline.stage import digests, ordered
from edgec.pipeline.store import Store
from edgec.progress import Silent
from edgec.recipe import LoadedGeneric, load_any_recipe
from edgec.stages.context import StageContext
from edgec.target import load_target

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.pipeline.plan_generic import GenericPlan

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 300,
        "max_position_embeddings": 48,
        "pad_token_id": 0,
    },
    "vit": {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 16,
        "patch_size": 8,
        "num_channels": 3,
    },
    "resnet": {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": 16,
        "hidden_sizes": [32, 64],
        "depths": [1, 1],
        "layer_type": "basic",
        "image_size": 32,
        "num_labels": 10,
    },
    "whisper": {
        "architectures": ["WhisperModel"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "d_model": 64,
        "encoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "num_mel_bins": 16,
        "max_source_positions": 30,
        "max_target_positions": 16,
        "vocab_size": 200,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    },
}


def write_recipe(folder: Path, kind: str, **fields: Any) -> Path:
    """A recipe of a tiny model with random weights in an existing folder; an embedding if BERT."""
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind]))
    recipe: dict[str, Any] = {
        "schema": "edgec.recipe/v1",
        "kind": "generic",
        "name": f"tiny-{kind}",
        "model": {"source": "synthetic:config.json"},
        "dimensions": {"batch": {"max": 4}},
        "quantization": {"scheme": "q0f32"},
        "targets": ["x86-64-v3"],
    }
    if kind == "bert":
        recipe["task"] = {"kind": "embedding"}
        recipe["dimensions"]["length"] = {"max": 32}
    path = folder / f"tiny-{kind}.yaml"
    path.write_text(json.dumps({**recipe, **fields}))  # JSON is YAML
    return path


def plan(recipe: Path, target: str, cache: Path, *overrides: str) -> GenericPlan:
    """The plan of a generic recipe."""
    loaded = load_any_recipe(recipe, overrides)
    assert isinstance(loaded, LoadedGeneric)
    store = Store(cache)
    store.prepare()
    return plan_generic(loaded, load_target(target), FileDigests(store))


def run_stages(built: GenericPlan, folder: Path) -> dict[str, Path]:
    """Run the stages here, each into a folder named by its digest; those that are there stay."""
    named = digests(built.stages)
    outputs: dict[str, Path] = {}
    for spec in ordered(built.stages):
        out = folder / f"{spec.name}-{named[spec.name][:16]}"
        outputs[spec.name] = out
        if out.exists():
            continue
        out.mkdir(parents=True)
        parents = {name: outputs[name] for name in spec.parents}
        inputs = json.loads(json.dumps(spec.inputs))
        context = StageContext(out, inputs, spec.local, parents, Silent())
        importlib.import_module(spec.module).run(context)
    return outputs


def report(outputs: dict[str, Path]) -> dict[str, Any]:
    """What verification found."""
    found: dict[str, Any] = json.loads((outputs["verify"] / REPORT).read_text())
    return found
