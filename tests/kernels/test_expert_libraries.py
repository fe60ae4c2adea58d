"""A model with experts, built for devices: each kernel alone, and logits against transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.layouts import mlc
from edgec.target import load_target
from edgec.verification.reference import from_artifact
from numerics.tiny_models import CHUNK, library_of, run_stages, save_random_model
from standin_tools import needs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

TOKENS = [int(token) for token in np.random.default_rng(3).integers(1, 300, CHUNK)]
# Half precision, in which a token may choose another expert where two are close: here it takes all.
# And float32, with the kernels of browsers.
# At night: the kernels are checked on every change, each alone and on more devices (test_gpu_experts).
CASES = [
    pytest.param(
        *("android-adreno", "q4f16_1", 4, 5e-3), marks=[needs("qemu-aarch64"), pytest.mark.nightly]
    ),
    pytest.param(
        "webgpu",
        "q4f32_1",
        16,
        2e-5,
        marks=[needs("wgpu"), needs("wasmtime"), needs("web toolchain"), pytest.mark.nightly],
    ),
]


@pytest.mark.parametrize(("name", "scheme", "experts", "close"), CASES)
def test_on_a_stand_in(name: str, scheme: str, experts: int, close: float, tmp_path: Path) -> None:
    from transformers import Qwen3MoeConfig  # noqa: PLC0415

    config = Qwen3MoeConfig(
        hidden_size=128,
        intermediate_size=96,
        moe_intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=experts,
        num_experts_per_tok=4,
        norm_topk_prob=True,
        vocab_size=320,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    folder = tmp_path / "model"
    save_random_model(config, folder, seed=5)
    target = load_target(name)
    outputs = run_stages(folder, tmp_path / "stages", target, scheme=scheme)
    library = library_of(outputs, target)
    _check_kernels(library, experts)
    engine = library.open(CHUNK, sequences=1)
    engine.add(0)
    logits = engine.all_logits(0, TOKENS)
    wanted = _reference(outputs, TOKENS)
    assert np.abs(logits - wanted).max() < close * np.abs(wanted).max()


def _check_kernels(library: Any, experts: int) -> None:
    checked = library.check_kernels(TOKENS)["checked"]
    for kernel in (
        f"choose_4_of_{experts}",
        f"expert_order_{experts}",
        f"expert_tiles_{experts}",
        f"experts_one_{experts}_q4_128x128_4",
        f"experts_one_{experts}_q4_128x64_1",
        f"experts_many_{experts}_q4_128x128_4",
        f"experts_many_{experts}_q4_128x64_1",
    ):
        assert kernel in checked, kernel


def _reference(outputs: dict[str, Any], tokens: list[int]) -> np.ndarray:
    from edgec.quantization.reader import QuantizedCheckpoint  # noqa: PLC0415
    from edgec.stages.model_file import ModelFile  # noqa: PLC0415

    model = ModelFile.read(outputs["checkpoint"])
    with QuantizedCheckpoint(outputs["quantize"]) as quantized:
        schemes = {item.name: quantized.scheme(item.name) for item in model.parameters}
    reference = from_artifact(model.config, outputs["pack"], model.parameters, schemes, mlc)
    return np.asarray(reference.logits(tokens))
