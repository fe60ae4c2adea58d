"""Gemma 2 and 3 on devices: each kernel alone, and logits past the window against transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.layouts import mlc
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.stages.model_file import ModelFile
from edgec.target import load_target
from edgec.verification.reference import from_artifact
from numerics.tiny_models import library_of, run_stages, save_random_model
from standin_tools import needs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

TOKENS = [int(token) for token in np.random.default_rng(3).integers(1, 300, 64)]
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "head_dim": 32,
    "vocab_size": 320,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "sliding_window": 20,
    "layer_types": ["sliding_attention", "full_attention"],
    "final_logit_softcapping": 3.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA2 = {"num_key_value_heads": 2, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 48}
GEMMA3 = {
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 1024,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
    },
}
CASES = [
    pytest.param(
        *("Gemma2Config", GEMMA2, "android-adreno", "q4f16_1", 8e-3),
        # At night: the kernels are checked on every change, each alone (test_local_attention).
        marks=[needs("qemu-aarch64"), pytest.mark.nightly],
    ),
    pytest.param(
        *("Gemma3TextConfig", GEMMA3, "webgpu", "q4f32_1", 2e-5),
        marks=[needs("wgpu"), needs("wasmtime"), needs("web toolchain"), pytest.mark.nightly],
    ),
]
ATTENTION = ("batch_decode_paged_kv", "batch_prefill_paged_kv", "batch_prefill_ragged_kv")


@pytest.mark.parametrize(("kind", "settings", "name", "scheme", "close"), CASES)
def test_on_a_stand_in(
    kind: str, settings: dict[str, Any], name: str, scheme: str, close: float, tmp_path: Path
) -> None:
    import transformers  # noqa: PLC0415

    folder, target = tmp_path / "model", load_target(name)
    save_random_model(getattr(transformers, kind)(**SIZES | settings), folder, seed=7)
    outputs = run_stages(folder, tmp_path / "stages", target, scheme=scheme)
    library = library_of(outputs, target)
    report = library.check_kernels(TOKENS[:30])
    for kernel in (*ATTENTION, "soft_cap"):
        assert report["checked"][kernel]["calls"] > 1, kernel
    # Kernels that know no caps and windows aren't there to be called.
    assert not any("tree" in kernel or "sliding" in kernel for kernel in report["not_called"])
    engine = library.open(len(TOKENS), sequences=2)
    wanted = _reference(outputs)
    engine.add(0)
    found = {44: engine.prefill(0, TOKENS[:45])}
    found |= {place: engine.decode(0, TOKENS[place]) for place in (45, 46, 47)}
    rest = engine.all_logits(0, TOKENS[48:])
    found |= dict(enumerate(rest, start=48))
    limit = close * np.abs(wanted).max()
    assert max(np.abs(logits - wanted[place]).max() for place, logits in found.items()) < limit


def _reference(outputs: dict[str, Any]) -> np.ndarray:
    model = ModelFile.read(outputs["checkpoint"])
    with QuantizedCheckpoint(outputs["quantize"]) as quantized:
        schemes = {item.name: quantized.scheme(item.name) for item in model.parameters}
    reference = from_artifact(model.config, outputs["pack"], model.parameters, schemes, mlc)
    return np.asarray(reference.logits(TOKENS))
