"""The two halves of WebLLM's model manifest: equal digests, and no key that WebLLM doesn't know."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgec.artifacts.library_metadata import library_metadata
from edgec.artifacts.web_program import compiled_program, model_manifest
from edgec.layouts.cache_index import TensorRecord
from edgec.layouts.specs import TensorSpec
from edgec.models.images import ImageInput
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.rope import Rope

if TYPE_CHECKING:
    from collections.abc import Sequence

TENSORS = [
    TensorSpec("model.norm.weight", (8,), "float32", "model.norm.weight"),
    TensorSpec("lm_head.q_weight", (4, 2), "uint32", "lm_head.weight"),
]
# What WebLLM 0.2.86 makes of these values before it digests them: keys sorted, no spaces.
TASKS = (
    '{"tasks":{"chat.completions":{"executor":"language_model",'
    '"inputs":{"text":{"processor":"tokenizer"}},"output":"text"}}}'
)
PARAMETERS = (
    '{"parameters":[{"dtype":"uint32","name":"lm_head.q_weight","shape":[4,2]},'
    '{"dtype":"float32","name":"model.norm.weight","shape":[8]}]}'
)
# The keys that WebLLM's parser takes; all but these are errors, and so is a missing one of these.
MANIFEST_KEYS = {"schema", "schema_version", "chat_config", "interface_id", "weights", "tasks"}
PROGRAM_KEYS = {
    "schema",
    "schema_version",
    "interface_id",
    "parameter_schema_id",
    "programs",
    "resources",
}
RESOURCE_KEYS = {
    "required_features",
    "max_storage_buffer_binding_size",
    "estimated_device_memory_bytes",
}


def program(tensors: Sequence[TensorSpec] = TENSORS, dtype: str = "float32") -> dict[str, Any]:
    return compiled_program(tensors, dtype=dtype, largest_buffer=64, device_memory=128)


def sha256(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_digests_are_of_canonical_json() -> None:
    manifest, compiled = model_manifest(TENSORS), program()
    assert manifest["interface_id"] == compiled["interface_id"] == sha256(TASKS)
    assert compiled["parameter_schema_id"] == sha256(PARAMETERS)
    assert manifest["weights"]["parameter_schema_id"] == compiled["parameter_schema_id"]
    assert json.loads(TASKS) == {"tasks": manifest["tasks"]}
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", manifest["interface_id"])


def test_the_order_of_the_weights_does_not_count() -> None:
    records = [
        TensorRecord(
            name=spec.name, shape=spec.shape, dtype=spec.dtype, format="raw", nbytes=32, offset=0
        )
        for spec in reversed(TENSORS)
    ]
    packed = model_manifest(records)["weights"]["parameter_schema_id"]
    assert packed == program()["parameter_schema_id"]


@pytest.mark.parametrize("change", [{"name": "w"}, {"shape": (2, 4)}, {"dtype": "float16"}])
def test_other_weights_have_another_digest(change: dict[str, Any]) -> None:
    others = [replace(TENSORS[0], **change), TENSORS[1]]
    assert program(others)["parameter_schema_id"] != program()["parameter_schema_id"]
    assert program(others)["interface_id"] == program()["interface_id"]


def test_webllm_knows_every_key() -> None:
    manifest, compiled = model_manifest(TENSORS), program()
    assert set(manifest) == MANIFEST_KEYS
    assert set(manifest["weights"]) == {"manifest", "parameter_schema_id"}
    assert set(compiled) == PROGRAM_KEYS
    assert set(compiled["resources"]) == RESOURCE_KEYS
    (task,) = manifest["tasks"].values()
    assert set(task) == {"executor", "inputs", "output"}
    assert task["inputs"] == {"text": {"processor": "tokenizer"}}
    one = compiled["programs"][task["executor"]]
    assert set(one) == {"kind", "exports"}
    assert set(one["exports"]) == {
        "embed_tokens",
        "create_kv_cache",
        "prefill_embeds",
        "decode_embeds",
    }
    assert (manifest["schema"], compiled["schema"]) == ("mlc.model-package", "mlc.compiled-program")
    assert manifest["weights"]["manifest"] == "tensor-cache.json"
    assert manifest["chat_config"] == "mlc-chat-config.json"


@pytest.mark.parametrize(("dtype", "features"), [("float16", ["shader-f16"]), ("float32", [])])
def test_what_the_device_must_have(dtype: str, features: list[str]) -> None:
    assert program(dtype=dtype)["resources"] == {
        "required_features": features,
        "max_storage_buffer_binding_size": 64,
        "estimated_device_memory_bytes": 128,
    }


def test_metadata_of_other_libraries_has_no_new_key() -> None:
    def metadata(**more: Any) -> dict[str, Any]:
        return library_metadata(
            model_type="llama",
            quantization="q4f32_1",
            context_length=64,
            window=None,
            prefill_chunk=16,
            max_batch_size=1,
            cache=KVCacheSpec(1, 1, 1, 8, Rope(10000.0, 8), "float32"),
            tensors=TENSORS,
            workspace={"prefill": 4},
            **more,
        )

    plain = metadata()
    assert "artifact" not in plain
    assert json.dumps(metadata(program=None)) == json.dumps(plain)
    assert metadata(program=program()) == {**plain, "artifact": program()}


def test_images_are_an_input_with_an_adapter() -> None:
    """Keys and values as WebLLM's parser wants them; others are errors there."""
    image = ImageInput(size=448, patch=28, start_id=5, image_id=6, end_id=7)
    manifest = model_manifest(TENSORS, image)
    compiled = compiled_program(
        TENSORS, dtype="float16", largest_buffer=1, device_memory=2, image=image
    )
    assert manifest["interface_id"] == compiled["interface_id"]
    assert manifest["interface_id"] != model_manifest(TENSORS)["interface_id"]
    inputs = manifest["tasks"]["chat.completions"]["inputs"]
    assert inputs["text"] == {"processor": "tokenizer"}
    assert inputs["image"] == {
        "processor": {
            "kind": "image_decode",
            "format": "rgb_u8",
            "layout": "nhwc",
            "resize": {"mode": "stretch", "height": 448, "width": 448},
            "num_embeddings": 256,
        },
        "adapter": "vision",
        "prompt": {
            "prefix_token_ids": [5],
            "placeholder_token_id": 6,
            "suffix_token_ids": [7],
        },
    }
    (one,) = compiled["programs"].values()
    assert one["adapters"] == {"vision": "image_embed"}
    assert one["adapter_dtypes"] == {"vision": "uint32"}
