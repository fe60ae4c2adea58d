"""Models to import, and what compiles an imported one for this CPU through edgec's own passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import tvm
from transformers import BertConfig, ResNetConfig, ViTConfig, WhisperConfig
from tvm import relax
from tvm.s_tir import dlight

from edgec.passes import pipeline
from edgec.passes.attach_bounds import AttachBounds
from edgec.passes.lower_linear import LowerLinear
from edgec.passes.lower_quantized_take import LowerQuantizedTake
from edgec.scheduling.kernels.cpu_linear import linear_kernels
from edgec.scheduling.rules.cpu import CPUElementwise
from edgec.scheduling.rules.cpu_contraction import CPUContraction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgec.importers.imported import ImportedModel, Signature

    Arrays = list[NDArray[Any]]

VECTOR_BITS = 256

CONFIGS: dict[str, Any] = {
    "bert": lambda: BertConfig(
        vocab_size=97,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    ),
    "vit": lambda: ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=24,
        patch_size=8,
    ),
    "resnet": lambda: ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24],
        depths=[1, 2],
        layer_type="bottleneck",
        image_size=32,
    ),
    "whisper": lambda: WhisperConfig(
        vocab_size=97,
        d_model=48,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_source_positions=25,
        num_mel_bins=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
}


class UNet(torch.nn.Module):
    """Group normalization, a transposed convolution, bilinear interpolation and a skip, a depthwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(3, 16, 3, 2, 1)
        self.norm = torch.nn.GroupNorm(4, 16)
        self.each = torch.nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.deep = torch.nn.Conv2d(16, 32, 3, 2, 1)
        self.up = torch.nn.ConvTranspose2d(32, 16, 2, 2)
        self.last = torch.nn.Conv2d(32, 5, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        outer = torch.nn.functional.silu(self.norm(self.down(image)))
        inner = self.up(torch.nn.functional.gelu(self.deep(self.each(outer))))
        both = torch.cat([outer, inner], dim=1)
        wide = torch.nn.functional.interpolate(
            both, scale_factor=2, mode="bilinear", align_corners=False
        )
        result: torch.Tensor = self.last(wide)
        return result


class Recurrent(torch.nn.Module):
    """An LSTM of two layers, then a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 16, 2, batch_first=True)
        self.gru = torch.nn.GRU(16, 12, batch_first=True)

    def forward(self, steps: torch.Tensor) -> dict[str, torch.Tensor]:
        inner, _ = self.lstm(steps)
        outer, last = self.gru(inner)
        return {"steps_out": outer, "last": last}


def make_unet() -> tuple[Any, ...]:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", max=4)
    return UNet(), {"image": torch.zeros(2, 3, 16, 24)}, {"image": {0: batch}}


def make_recurrent() -> tuple[Any, ...]:
    torch.manual_seed(0)
    return Recurrent(), (torch.zeros(3, 5, 8),)


def arguments(signature: Signature, sizes: Mapping[str, int]) -> Arrays:
    """Random inputs; the last row of a mask ends in the middle."""
    rng = np.random.default_rng(1)
    made: Arrays = []
    for item in signature.inputs:
        shape = [size if isinstance(size, int) else sizes[size] for size in item.shape]
        if item.name == "attention_mask":
            mask = np.ones(shape, item.dtype)
            mask[-1, (shape[1] + 1) // 2 :] = 0
            made.append(mask)
        elif item.dtype == "int32":
            made.append(rng.integers(0, 90, shape).astype(np.int32))
        else:
            made.append(rng.standard_normal(shape).astype(item.dtype))
    return made


def lowered(
    model: ImportedModel, *, vector_bits: int = VECTOR_BITS, mcpu: str = "x86-64-v3"
) -> relax.VirtualMachine:
    """The model's function as machine code for this CPU."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu})
    rules = (CPUContraction(vector_bits), CPUElementwise(vector_bits))
    mod = model.mod
    for passes in (
        [AttachBounds(model.bounds), tvm.tirx.transform.BindTarget(target)],
        [LowerLinear(linear_kernels(vector_bits, target)), LowerQuantizedTake()],
        pipeline.fusion(),
        [dlight.ApplyDefaultSchedule(*rules)],
        pipeline.plan_passes(),
        pipeline.machine_passes(),
    ):
        mod = pipeline.apply(mod, passes, target)
    return relax.VirtualMachine(relax.build(mod, target, relax_pipeline=None), tvm.cpu())


def compiled(model: ImportedModel) -> Callable[[Arrays], Arrays]:
    """The model's function as machine code, weights included."""
    machine = lowered(model)
    weights = [tvm.runtime.tensor(array) for _, array in model.weights()]

    def call(inputs: Arrays) -> Arrays:
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in inputs]
        return [result.numpy() for result in machine["main"](*tensors, *weights)]

    return call
