"""Small random models with every feature of a family switched on, built by the real stages."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.artifacts.layout import LIBRARY_FACTS, REFERENCE_KERNELS
from edgec.layouts.find import find_layout
from edgec.layouts.tensor_cache import TensorCache
from edgec.layouts.unpack import unpacked_rows
from edgec.progress import Silent
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.runtime.devices import open_device
from edgec.runtime.engine import Engine
from edgec.runtime.forward import Capacity
from edgec.runtime.tvm_runtime import Machine
from edgec.runtime.weights import MappedWeights
from edgec.stages import checkpoint, importer, pack, quantize
from edgec.stages import compile as compile_stage
from edgec.stages.context import StageContext
from edgec.stages.model_file import ModelFile
from edgec.standins import Requirements
from edgec.target import load_target
from edgec.verification.built import BuiltLibrary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgec.models.window import SlidingWindow
    from edgec.target import Target

SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 512,
}
"""Of a dense model, as transformers' configs take them."""
CONTEXT = 128
CHUNK = 32
BATCH = 4


@dataclass
class Built:
    """A compiled model and the weights it ships, dequantized, under the checkpoint's names."""

    engine: Engine
    weights: dict[str, np.ndarray]


def save_random_model(config: Any, folder: Path, *, seed: int) -> Any:
    """A transformers model with random weights of realistic scale, written as safetensors."""
    import torch  # noqa: PLC0415 - only these tests need it
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.2)
    model.save_pretrained(folder)
    return model


def build(
    folder: Path,
    out: Path,
    *,
    scheme: str,
    overrides: Any = (),
    group_size: int = 32,
    window: SlidingWindow | None = None,
    image_size: int | None = None,
    layout: str = "mlc",
    kv_cache: str = "",
) -> Built:
    """Run the stages from checkpoint to library on a model folder, for this CPU.

    By default in the layout whose kernels take activations as they are: rounding them to 8 bits is a
    larger difference than what is looked for.
    """
    target = load_target("host").model_copy(update={"layout": layout})
    outputs = run_stages(
        folder,
        out,
        target,
        scheme=scheme,
        overrides=overrides,
        group_size=group_size,
        window=window,
        image_size=image_size,
        kv_cache=kv_cache,
    )
    library = outputs["compile"] / "model.so"
    device = open_device(None, str(library))
    engine = Engine(
        Machine(library, device),
        device,
        library,
        MappedWeights(outputs["pack"]),
        Capacity(sequences=BATCH, tokens=CONTEXT * BATCH, prefill_chunk=CHUNK),
    )
    return Built(engine, shipped_weights(outputs, target.layout))


def run_stages(
    folder: Path,
    out: Path,
    target: Target,
    *,
    scheme: str,
    overrides: Any = (),
    group_size: int = 32,
    window: SlidingWindow | None = None,
    image_size: int | None = None,
    shared: Mapping[str, Path] = MappingProxyType({}),
    kv_cache: str = "",
) -> dict[str, Path]:
    """Run the stages from checkpoint to library.

    Args:
        folder: of the model.
        out: gets a folder for each stage.
        target: to compile for.
        scheme: of the quantization.
        overrides: of the quantization.
        group_size: of the quantization.
        window: that slides over the context.
        image_size: pixels of each side of the images that the model takes.
        shared: what this function returned for another target: only the library is made anew.
        kv_cache: how the KV cache holds keys and values; empty: as they are computed.

    Returns:
        The folder of each stage.
    """
    inputs = {
        "quantization.scheme": scheme,
        "quantization.method": "rtn",
        "quantization.group_size": group_size,
        "quantization.overrides": list(overrides),
        "context.length": CONTEXT,
        "context.prefill_chunk": CHUNK,
        "context.max_batch_size": BATCH,
        "context.sliding_window": window.size if window else None,
        "context.attention_sinks": window.sinks if window else 0,
        "context.kv_cache_dtype": kv_cache,
        "target.tvm": target.tvm,
        "target.platform": target.platform,
        "target.vector_bits": target.vector_bits,
        "target.layout": target.layout,
        "target.library": target.library.model_dump(mode="json"),
        "target.limits": target.limits,
        "target.name": target.name,
        "library.name": "tiny",
        "image.size": image_size,
    }
    local = {"source": str(folder), "base": str(folder), "seed": 0, "threads": 2}
    outputs = {name: path for name, path in shared.items() if name != "compile"}
    for name, stage, parents in (
        ("checkpoint", checkpoint, ()),
        ("quantize", quantize, ("checkpoint",)),
        ("import", importer, ("checkpoint",)),
        ("compile", compile_stage, ("checkpoint", "import")),
        ("pack", pack, ("checkpoint", "quantize")),
    ):
        if name in outputs:
            continue
        outputs[name] = out / name
        outputs[name].mkdir(parents=True)
        stage.run(
            StageContext(
                out=outputs[name],
                inputs=inputs,
                local=local,
                parents={parent: outputs[parent] for parent in parents},
                progress=Silent(),
            )
        )
    return outputs


def library_of(
    outputs: Mapping[str, Path], target: Target, window: SlidingWindow | None = None
) -> BuiltLibrary:
    """The library of some stages on the target's stand-in."""
    facts = json.loads((outputs["compile"] / LIBRARY_FACTS).read_text())
    parameters = ModelFile.read(outputs["checkpoint"]).parameters
    return BuiltLibrary(
        path=outputs["compile"] / facts["library"],
        weights=outputs["pack"],
        standin=target.standin,
        requirements=Requirements(
            target.architecture, target.cpu_features, target.standin_cpu, target.limits
        ),
        context_length=CONTEXT,
        prefill_chunk=CHUNK,
        max_batch_size=BATCH,
        window=window,
        parameters=sum(math.prod(parameter.shape) for parameter in parameters),
        kernels=sorted(facts["kernels"]),
        references=outputs["compile"] / REFERENCE_KERNELS,
    )


def shipped_weights(outputs: Mapping[str, Path], layout: str) -> dict[str, np.ndarray]:
    """The weights that the stages packed, dequantized, under the checkpoint's names."""
    cache, form = TensorCache(outputs["pack"]), find_layout(layout)
    weights: dict[str, np.ndarray] = {}
    with QuantizedCheckpoint(outputs["quantize"]) as quantized:
        for parameter in ModelFile.read(outputs["checkpoint"]).parameters:
            scheme = quantized.scheme(parameter.name)
            rows = unpacked_rows(form, cache, parameter, scheme, 0, parameter.shape[0])
            first = 0
            for source in parameter.sources:
                weights[source.name] = np.empty(source.shape, np.float32)
                for row, count in source.runs(0, source.shape[0]):
                    weights[source.name][row : row + count] = rows[first : first + count]
                    first += count
                weights[source.name] -= np.float32(source.offset)
    return weights
