"""Artifacts that look whole and hold nothing that runs, and an engine that follows a script."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from chat_fakes import sentencepiece_like

from edgec.artifacts.artifact import Artifact, open_artifact
from edgec.artifacts.layout import MANIFEST_SCHEMA
from edgec.runtime.forward import Capacity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

VOCABULARY = 512
CONTEXT = 64
STOP = 2

RECIPE: dict[str, Any] = {
    "schema": "edgec.recipe/v1",
    "name": "toy",
    "model": {"source": "toy"},
    "context": {"length": CONTEXT, "prefill_chunk": 16, "max_batch_size": 2},
    "quantization": {"scheme": "q4f32_1"},
    "targets": ["host"],
}


def chat_config(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "context_window_size": CONTEXT,
        "prefill_chunk_size": 16,
        "temperature": 0.0,
        "top_p": 1.0,
        "conv_template": {
            "name": "completion",
            "roles": {"user": "", "assistant": "", "tool": ""},
            "seps": [""],
            "stop_token_ids": [STOP],
        },
        **changes,
    }


CHAT_FORMAT = {
    "name": "toy-chat",
    "roles": {"user": "hi", "assistant": "h", "tool": "i"},
    "seps": ["\n"],
    "stop_token_ids": [STOP],
}


def make_artifact(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    files: dict[str, bytes] | None = None,
    **changes: Any,
) -> Artifact:
    """Write an artifact; ``changes`` go into the manifest, by dotted name with ``__`` for dots."""
    (folder / "lib").mkdir(parents=True)
    sentencepiece_like(folder / "model", metaspace=False)
    contents = {
        "lib/model.so": b"not really",
        "model/mlc-chat-config.json": json.dumps(config or chat_config()).encode(),
        "model/tokenizer.json": (folder / "model/tokenizer.json").read_bytes(),
        "report.json": json.dumps({"schema": "edgec.report/v1"}).encode(),
        **(files or {}),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    manifest: dict[str, Any] = {
        "schema": MANIFEST_SCHEMA,
        "name": "toy",
        "target": "x86-64-v3",
        "library": "model.so",
        "standin": "native",
        "build": {"digest": "d" * 64},
        "recipe": RECIPE,
        "overrides": [],
        "model": {"family": "llama", "parameters": 1000, "inputs": {}},
        "quantization": {"scheme": "q4f32_1", "method": "rtn", "bits_per_weight": 5.0},
        "toolchain": {"edgec": "0", "tools": {"linker": "cc 1"}},
        "runtime": {"architecture": "x86_64", "cpu_features": ["avx2"], "tvm": "0.27.0.post1"},
        "memory": {
            "context_length": CONTEXT,
            "weights_bytes": 5000,
            "decode_weights_bytes": 4000,
            "kv_cache_bytes": 4096,
            "largest_buffer_bytes": 2048,
            "workspace_bytes": 100,
            "total_bytes": 9196,
        },
        "kernels": {"sources": {"default": 3, "hand-written": 2}},
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in contents.items()
        },
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        place = manifest
        for key in path:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_artifact(folder)


class FakeDevice:
    """A handle like TVM's."""

    def __init__(self, kind: int = 1, device_name: str = "") -> None:
        self.kind = kind
        self.device_name = device_name

    def dlpack_device_type(self) -> int:
        return self.kind


class ScriptedEngine:
    """Says the tokens of ``script`` one after the other; knows what is in its sequence."""

    def __init__(self, script: Sequence[int] = (), tokens: int = CONTEXT) -> None:
        self.script = list(script)
        self.device = FakeDevice()
        self.metadata: dict[str, Any] = {"context_window_size": CONTEXT}
        self.capacity = Capacity(1, tokens, 16)
        self.sequences: dict[int, list[int]] = {}
        self.calls: list[tuple[str, int]] = []
        self.said = 0
        self.fail_after: int | None = None

    def add(self, sequence: int) -> None:
        assert not self.sequences, "there is room for one"
        self.sequences[sequence] = []
        self.calls.append(("add", 0))

    def remove(self, sequence: int) -> None:
        del self.sequences[sequence]
        self.calls.append(("remove", 0))

    def pop(self, sequence: int, tokens: int) -> None:
        assert 0 < tokens < len(self.sequences[sequence])
        del self.sequences[sequence][-tokens:]
        self.calls.append(("pop", tokens))

    def prefill(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.calls.append(("prefill", len(tokens)))
        return self._append(sequence, tokens)

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        self.calls.append(("decode", 1))
        return self._append(sequence, [token])

    def _append(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        if self.fail_after is not None and self.said >= self.fail_after:
            raise KeyboardInterrupt
        self.sequences[sequence] += tokens
        assert len(self.sequences[sequence]) <= self.capacity.tokens
        logits = np.zeros(VOCABULARY, np.float32)
        logits[self.script[self.said] if self.said < len(self.script) else STOP] = 1
        self.said += 1
        return logits
