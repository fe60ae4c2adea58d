"""Stage 9: run the library on the target's stand-in and compare it with the original model.

Writes ``report.json`` and, if the library could be run, ``golden.safetensors``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.artifacts.layout import GOLDEN, LIBRARY_FACTS, REFERENCE_KERNELS, REPORT
from edgec.checkpoints import open_checkpoint
from edgec.files import pretty_json
from edgec.layouts.find import find_layout
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.runtime.tokenizer import Tokenizer
from edgec.stages.context_inputs import read_stored, read_window
from edgec.stages.model_file import ModelFile
from edgec.standins import Requirements
from edgec.verification.built import BuiltLibrary
from edgec.verification.golden import make_golden
from edgec.verification.golden_file import write_golden
from edgec.verification.reference import from_artifact, from_checkpoint
from edgec.verification.run import rounding_error, verify
from edgec.verification.text import load_documents, windows
from edgec.verification.verdict import check_agreement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.quantization.schemes import FloatType, TensorScheme
    from edgec.runtime.engine import Engine
    from edgec.stages.context import StageContext
    from edgec.verification.reference import Reference
    from edgec.verification.text import Document

_GOLDEN_TOKENS = 64
# Without a text the library is only compared with itself, on ids without meaning.
_SELF_CHECK_TOKENS = 96


def run(context: StageContext) -> None:
    """See the module's docstring."""
    model = ModelFile.read(context.parents["checkpoint"])
    with QuantizedCheckpoint(context.parents["quantize"]) as quantized:
        schemes = {item.name: quantized.scheme(item.name) for item in model.parameters}
        dtype = quantized.dtype
    documents, samples = _text(context, model)
    built = _built(context, model)
    kernels = _check_kernels(context, built, [token for ids in samples for token in ids])
    engine, facts = _engine(context, built, longest=max(map(len, samples)))
    original, shipped = _references(context, model, schemes, dtype)
    layout = find_layout(str(context.inputs["target.layout"]))
    rounds = bool(read_stored(context.inputs)) or any(
        layout.activation_group(p, schemes[p.name]) for p in model.parameters
    )
    figures = verify(
        engine,
        original,
        shipped,
        samples,
        documents=documents,
        dtype=dtype,
        progress=context.progress,
        extent=built.extent,
        window=built.window,
        rounds=rounds,
        roundings={} if shipped is None else shipped.roundings,
    )
    check_agreement(figures)
    if stored := read_stored(context.inputs):
        facts["kv_cache_dtype"] = stored
    report = {"verification": facts, **figures, **kernels}
    (context.out / REPORT).write_text(pretty_json(report))
    if engine is not None:
        golden = make_golden(
            engine,
            samples[0][:_GOLDEN_TOKENS],
            dtype,
            shipped,
            built.window,
            rounding_error(figures, rounds=rounds),
        )
        write_golden(context.out / GOLDEN, golden)


def _text(context: StageContext, model: ModelFile) -> tuple[list[Document], list[list[int]]]:
    """The evaluation text and its windows; ids drawn at random if the recipe names none."""
    source = context.local["text"]
    if source is None:
        vocabulary = int(model.config["vocab_size"])
        count = min(_SELF_CHECK_TOKENS, int(context.inputs["context.length"]))
        ids = np.random.default_rng(0).integers(0, vocabulary, count)
        return [], [[int(token) for token in ids]]
    documents = load_documents(str(source), Path(str(context.local["base"])))
    tokenizer = Tokenizer(context.parents["checkpoint"])
    return documents, windows(
        documents,
        tokenizer.encode,
        tokenizer.bos_id,
        int(context.inputs["quality.window"]),
        int(context.inputs["quality.tokens"]),
    )


def _built(context: StageContext, model: ModelFile) -> BuiltLibrary:
    """The library and its stand-in."""
    inputs, compiled = context.inputs, context.parents["compile"]
    facts = json.loads((compiled / LIBRARY_FACTS).read_text())
    return BuiltLibrary(
        path=compiled / facts["library"],
        weights=context.parents["pack"],
        standin=str(inputs["target.standin"]),
        requirements=Requirements(
            architecture=str(inputs["target.architecture"]),
            cpu_features=tuple(inputs["target.cpu_features"]),
            cpu=inputs["target.standin_cpu"],
            limits=dict(inputs["target.limits"]),
        ),
        context_length=int(inputs["context.length"]),
        prefill_chunk=int(inputs["context.prefill_chunk"]),
        max_batch_size=int(inputs["context.max_batch_size"]),
        window=read_window(inputs),
        parameters=sum(math.prod(parameter.shape) for parameter in model.parameters),
        kernels=sorted(facts["kernels"]),
        references=compiled / REFERENCE_KERNELS,
    )


def _check_kernels(context: StageContext, built: BuiltLibrary, tokens: list[int]) -> dict[str, Any]:
    """Each kernel alone, if the stand-in shows its calls."""
    if not built.emulated:
        return {}
    context.progress.note("checking each kernel alone")
    return {"kernels": built.check_kernels(tokens)}


def _engine(
    context: StageContext, built: BuiltLibrary, longest: int
) -> tuple[Engine | None, dict[str, Any]]:
    """The library on its stand-in, or the reason why it can't be run here."""
    missing = list(context.inputs["standin.missing_features"])
    if missing:
        reason = f"this CPU lacks {', '.join(missing)}"
        context.progress.note(f"the library is not run: {reason}")
        return None, {"standin": built.standin, "ran": False, "reason": reason}
    context.progress.note("loading the library")
    facts: dict[str, Any] = {"standin": built.standin, "ran": True}
    if emulated := context.inputs["standin.emulated_features"]:
        facts["emulated"] = list(emulated)
    return built.open(longest), facts


def _references(
    context: StageContext,
    model: ModelFile,
    schemes: Mapping[str, TensorScheme | None],
    dtype: FloatType,
) -> tuple[Reference | None, Reference | None]:
    """The original model and the one with the shipped weights, if the recipe asks for them."""
    if not context.inputs["quality.reference"]:
        return None, None
    context.progress.note("loading the reference")
    window = read_window(context.inputs)
    length = int(context.inputs["context.length"])
    stored = read_stored(context.inputs)
    original = from_checkpoint(
        open_checkpoint(
            str(context.local["source"]),
            Path(str(context.local["base"])),
            seed=int(context.local["seed"]),
            tensors=lambda _config: model.sources,
        ),
        window,
        context_length=length,
        stored=stored,
    )
    if dtype == "float32" and not any(schemes.values()):
        # Weights lose nothing when they are stored in float32: one model serves as both.
        return original, original
    packed = context.parents["pack"]
    return original, from_artifact(
        model.config,
        packed,
        model.parameters,
        schemes,
        find_layout(str(context.inputs["target.layout"])),
        window,
        context_length=length,
        stored=stored,
    )
