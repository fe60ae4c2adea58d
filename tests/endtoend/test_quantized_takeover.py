"""The codes of GPTQ and AWQ checkpoints come out of the quantize stage bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy

from edgec import resources
from edgec.quantization.reader import QuantizedCheckpoint
from endtoend.test_quantized_builds import stages, write
from quantized_forms import quantized_to

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

# Parameters of a layer, and the checkpoint's matrices that they are made of.
FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}


@pytest.mark.parametrize(
    ("form", "group", "symmetric"),
    [("gptq", 32, True), ("gptq", 128, False), ("awq", 128, False), ("awq", 64, True)],
)
def test_every_code_scale_and_zero_point_is_the_checkpoints(
    tmp_path: Path, form: str, group: int, symmetric: bool
) -> None:
    write(tmp_path, form, group=group, symmetric=symmetric)
    original = safetensors.numpy.load_file(
        resources.folder("recipes") / "tinypy" / "model.safetensors"
    )
    with QuantizedCheckpoint(stages(tmp_path, form)) as stored:
        for layer in range(6):
            prefix = f"model.layers.{layer}."
            for parameter, sources in FUSED.items():
                forms = [
                    quantized_to(original[f"{prefix}{s}.weight"], group=group, symmetric=symmetric)
                    for s in sources
                ]
                name = f"{prefix}{parameter}.weight"
                tensor = stored.quantized(name, 0, stored.shape(name)[0])
                codes = np.concatenate([f.codes - 8 for f in forms])
                scales = np.concatenate([f.scales for f in forms]).repeat(group // 32, axis=1)
                np.testing.assert_array_equal(tensor.codes, codes)
                np.testing.assert_array_equal(tensor.scales.view(np.uint16), scales.view(np.uint16))
                if symmetric:
                    assert tensor.zeros is None
                    continue
                zeros = np.concatenate([f.zeros for f in forms]) - 8
                np.testing.assert_array_equal(tensor.zeros, zeros.repeat(group // 32, axis=1))
