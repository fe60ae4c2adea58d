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
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.runtime.engine import Capacity
from edgec.runtime.tokenizer import Tokenizer
from edgec.stages.model_file import ModelFile
from edgec.standins import NATIVE, Requirements, find_standin
from edgec.verification.golden import make_golden
from edgec.verification.golden_file import write_golden
from edgec.verification.kernel_references import References
from edgec.verification.kernels import check_kernels
from edgec.verification.reference import from_artifact, from_checkpoint
from edgec.verification.run import WHOLE, Extent, verify
from edgec.verification.text import load_documents, windows
from edgec.verification.verdict import check_agreement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.quantization.schemes import FloatType, TensorScheme
    from edgec.runtime.engine import Engine
    from edgec.stages.context import StageContext
    from edgec.standins.device.hosting import Observer
    from edgec.verification.reference import Reference
    from edgec.verification.text import Document

_GOLDEN_TOKENS = 64
# Without a text the library is only compared with itself, on ids without meaning.
_SELF_CHECK_TOKENS = 96
# How long an emulated device may take for the text, and again for the ways to call it.
_SECONDS = 30
_FEWEST, _PATH_TOKENS = 16, 48  # tokens
_CHECKED_TOKENS = 64
# Several sequences at once, and room for chunks that end unevenly.
_SEQUENCES_AT_ONCE = 4


def run(context: StageContext) -> None:
    """See the module's docstring."""
    model = ModelFile.read(context.parents["checkpoint"])
    with QuantizedCheckpoint(context.parents["quantize"]) as quantized:
        schemes = {item.name: quantized.scheme(item.name) for item in model.parameters}
        dtype = quantized.dtype
    documents, samples = _text(context, model)
    kernels = _check_kernels(context, [token for ids in samples for token in ids])
    engine, facts = _engine(context, longest=max(map(len, samples)))
    original, shipped = _references(context, model, schemes, dtype)
    figures = verify(
        engine,
        original,
        shipped,
        samples,
        documents=documents,
        dtype=dtype,
        progress=context.progress,
        extent=_extent(context),
    )
    check_agreement(figures)
    report = {"verification": facts, **figures, **kernels}
    (context.out / REPORT).write_text(pretty_json(report))
    if engine is not None:
        golden = make_golden(engine, samples[0][:_GOLDEN_TOKENS], dtype, shipped)
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


def _extent(context: StageContext) -> Extent:
    """All of the text where the library runs on this machine itself, a part where it is emulated."""
    rate = find_standin(str(context.inputs["target.standin"])).WEIGHTS_PER_SECOND
    if rate is None:
        return WHOLE
    model = ModelFile.read(context.parents["checkpoint"])
    weights = sum(math.prod(parameter.shape) for parameter in model.parameters)
    tokens = int(_SECONDS * rate / weights)
    return Extent(
        tokens=max(_FEWEST, tokens), path_tokens=max(_FEWEST, min(_PATH_TOKENS, tokens // 12))
    )


def _check_kernels(context: StageContext, tokens: list[int]) -> dict[str, Any]:
    """Each kernel alone, with every memory access checked, if the stand-in shows its calls."""
    if context.inputs["target.standin"] == NATIVE:
        return {}
    context.progress.note("checking each kernel alone")
    references = References(context.parents["compile"] / REFERENCE_KERNELS)
    facts = json.loads((context.parents["compile"] / LIBRARY_FACTS).read_text())

    def open_checked(observer: Observer) -> Engine:
        return _open(context, longest=_CHECKED_TOKENS, checked=True, observer=observer)

    return {"kernels": check_kernels(open_checked, references, facts["kernels"], tokens)}


def _engine(context: StageContext, longest: int) -> tuple[Engine | None, dict[str, Any]]:
    """The library on its stand-in, or the reason why it can't be run here."""
    standin = str(context.inputs["target.standin"])
    missing = list(context.inputs["standin.missing_features"])
    if missing:
        reason = f"this CPU lacks {', '.join(missing)}"
        context.progress.note(f"the library is not run: {reason}")
        return None, {"standin": standin, "ran": False, "reason": reason}
    context.progress.note("loading the library")
    return _open(context, longest), {"standin": standin, "ran": True}


def _open(
    context: StageContext,
    longest: int,
    *,
    checked: bool = False,
    observer: Observer | None = None,
) -> Engine:
    inputs, parents = context.inputs, context.parents
    library = json.loads((parents["compile"] / LIBRARY_FACTS).read_text())["library"]
    return find_standin(str(inputs["target.standin"])).open_engine(
        parents["compile"] / library,
        parents["pack"],
        Requirements(
            architecture=str(inputs["target.architecture"]),
            cpu_features=tuple(inputs["target.cpu_features"]),
            cpu=inputs["target.standin_cpu"],
            limits=dict(inputs["target.limits"]),
        ),
        capacity=Capacity(
            sequences=min(_SEQUENCES_AT_ONCE, int(inputs["context.max_batch_size"])),
            tokens=min(int(inputs["context.length"]), _SEQUENCES_AT_ONCE * longest),
            prefill_chunk=int(inputs["context.prefill_chunk"]),
        ),
        checked=checked,
        observer=observer,
    )


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
    original = from_checkpoint(
        open_checkpoint(
            str(context.local["source"]),
            Path(str(context.local["base"])),
            seed=int(context.local["seed"]),
            tensors=lambda _config: model.sources,
        )
    )
    if dtype == "float32" and not any(schemes.values()):
        # Weights lose nothing when they are stored in float32: one model serves as both.
        return original, original
    return original, from_artifact(model.config, context.parents["pack"], model.parameters, schemes)
