"""What pages for browsers read: WebLLM's ``AppConfig``, and what it has no place for."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from edgec.artifacts.conversation import COMPLETION
from edgec.artifacts.layout import CHAT_CONFIG
from edgec.artifacts.web_program import MODEL_MANIFEST
from edgec.errors import VerificationError
from edgec.layouts.cache_index import INDEX, read_cache_index
from edgec.packaging.configs import model_facts
from edgec.quantization.schemes import find_scheme

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.packaging.model import PackagedModel, SourceFile

WEB_APP_CONFIG = "app-config.json"
FILES_BELOW = "resolve/main"
"""Where WebLLM looks for a model's files below the model's address, as the hub has them."""
_MIB = 1 << 20
# What every device with WebGPU binds as one buffer.
_SMALLEST_BINDING = 128 * _MIB
# The extensions of WGSL that a kernel names, and the features by which a page asks for them.
_FEATURES = {"f16": "shader-f16", "subgroups": "subgroups"}
_ENABLE = re.compile(rb"^\s*enable\s+([\w\s,]+);", re.MULTILINE)
# WebLLM loads the first of these that the chat config names.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")


def web_app_config(models: Sequence[PackagedModel]) -> dict[str, Any]:
    """``app-config.json``: an ``AppConfig`` of WebLLM 0.2.86.

    Addresses are relative to the file, except of weights that are elsewhere; WebLLM wants them
    absolute, so a page resolves them first.
    """
    return {"cacheBackend": "cache", "model_list": [_record(model) for model in models]}


def web_facts(model: PackagedModel) -> dict[str, Any]:
    """A model's entry in ``edgec-models.json``: what people are told, and digests of its files."""
    recipe, config = model.artifact.manifest["recipe"], model.artifact.chat_config
    scheme = find_scheme(model.artifact.manifest["quantization"]["scheme"])
    weights = f"{scheme.bits}-bit weights" if scheme.bits else "weights as they are"
    conversation = config["conv_template"]
    files = _loaded(model)
    return {
        **model_facts(model),
        "title": model.artifact.manifest["name"],
        "description": " ".join(str(recipe.get("description") or "").split()),
        "quantization": scheme.name,
        "precision": f"{weights}, {scheme.dtype.removeprefix('float')}-bit computation",
        "completion": conversation.get("name") == COMPLETION,
        "prefix": bool(conversation.get("system_prefix_token_ids")),
        "context_window_size": config["context_window_size"],
        "sampling": {name: config[name] for name in ("temperature", "top_p")},
        "download_bytes": model.objects.nbytes + sum(file.nbytes for file in files),
        "library": {
            "path": library_path(model),
            "bytes": model.objects.nbytes,
            "sha256": model.objects.sha256,
        },
        "files": [
            {"path": file.name, "bytes": file.nbytes, "sha256": file.sha256} for file in files
        ],
    }


def library_path(model: PackagedModel) -> str:
    """Where the site has a model's library."""
    return f"models/{model.model_id}.wasm"


def model_path(model: PackagedModel) -> str:
    """The folder of the site below which a model's files are."""
    return f"models/{model.model_id}"


def _record(model: PackagedModel) -> dict[str, Any]:
    buffer = int(model.artifact.manifest["memory"]["largest_buffer_bytes"])
    by_name = {file.name: file for file in model.files}
    tokenizers = [file for file in _loaded(model) if file.name in _TOKENIZERS]
    record: dict[str, Any] = {
        "model": model_path(model) if model.bundled else model.web_url,
        "model_id": model.model_id,
        "model_lib": library_path(model),
        "required_features": _features(model),
        "vram_required_MB": round(model.estimated_vram_bytes / _MIB, 2),
        "low_resource_required": buffer <= _SMALLEST_BINDING,
        "buffer_size_required_bytes": buffer,
        "overrides": {"context_window_size": model.artifact.chat_config["context_window_size"]},
        "integrity": {
            "config": _sri(by_name[CHAT_CONFIG]),
            "model_lib": _sri(model.objects),
            "tokenizer": {file.name: _sri(file) for file in tokenizers},
            "onFailure": "error",
        },
    }
    if model.by_manifest:
        record["model_manifest"] = MODEL_MANIFEST
    return record


def _loaded(model: PackagedModel) -> list[SourceFile]:
    """Those of a model's files that WebLLM loads, in the order in which it does.

    Raises:
        VerificationError: there is no tokenizer that WebLLM reads, or no model manifest.
    """
    named = model.artifact.chat_config["tokenizer_files"]
    tokenizer = next((name for name in _TOKENIZERS if name in named), None)
    if tokenizer is None:
        raise VerificationError(
            f"the model has neither {' nor '.join(_TOKENIZERS)}, and WebLLM reads no other tokenizer",
            where=str(model.artifact.model / CHAT_CONFIG),
            remedy="save the model's tokenizer as tokenizer.json and build it again",
        )
    shards = [shard.file for shard in read_cache_index(model.artifact.model).records]
    by_name = {file.name: file for file in model.files}
    manifests = [MODEL_MANIFEST] if model.by_manifest else []
    if not by_name.keys() >= {*manifests}:
        raise VerificationError(
            f"the model has no {MODEL_MANIFEST}, by which --model-manifest has it loaded",
            where=str(model.artifact.model),
            remedy="build the artifact again with edgec build, or leave the option out",
        )
    return [by_name[name] for name in (*manifests, CHAT_CONFIG, tokenizer, INDEX, *shards)]


def _features(model: PackagedModel) -> list[str]:
    """The features that the kernels' own text says they need, sorted."""
    assert model.library.device is not None
    named = {
        extension.strip()
        for code in model.library.device.code.values()
        for found in _ENABLE.findall(code)
        for extension in found.decode().split(",")
    }
    return sorted(_FEATURES.get(extension, extension) for extension in named)


def _sri(file: SourceFile) -> str:
    """A digest as browsers write it: ``"sha256-"`` and base64."""
    return f"sha256-{base64.b64encode(bytes.fromhex(file.sha256)).decode()}"
