"""Repeat the checks of a finished artifact: files, kernels, golden outputs, the whole comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.errors import UsageError, VerificationError
from edgec.models.window import SlidingWindow
from edgec.quantization.schemes import find_scheme
from edgec.runtime.compatibility import check_runtime
from edgec.standins import Requirements
from edgec.verification.built import BuiltLibrary
from edgec.verification.generic_repeat import (
    generic_library,
    repeat_generic_golden,
    repeat_generic_kernels,
)
from edgec.verification.golden import check_golden
from edgec.verification.golden_file import read_golden
from edgec.verification.original import find_original, references
from edgec.verification.run import verify
from edgec.verification.text import load_documents, windows
from edgec.verification.verdict import check_agreement, gates

if TYPE_CHECKING:
    from edgec.artifacts.artifact import Artifact
    from edgec.progress import Progress
    from edgec.verification.original import Original
    from edgec.verification.run import Report
    from edgec.verification.text import Document

# Without golden inputs kernels are run on ids without meaning.
_RANDOM_TOKENS = 64


@dataclass(frozen=True)
class Files:
    """The files of an artifact whose bytes are those that the manifest names.

    Attributes:
        count: how many, without the manifest itself.
        nbytes: their size together.
    """

    count: int
    nbytes: int


def repeat_files(artifact: Artifact) -> Files:
    """Compare every file's digest with the manifest.

    Raises:
        VerificationError: a file is missing, has other bytes, or isn't in the manifest.
    """
    artifact.check_files()
    entries = artifact.manifest["files"].values()
    return Files(len(entries), sum(entry["bytes"] for entry in entries))


def shows_kernels(artifact: Artifact, standin: str | None = None) -> bool:
    """Whether a stand-in shows each kernel of an artifact, and the artifact what it computes.

    Raises:
        UsageError: there is no such stand-in.
        ToolchainError: TVM is missing, or has another version than the library was compiled by.
    """
    if artifact.interface is not None:
        return artifact.reference_kernels.is_file() and generic_library(artifact, standin).emulated
    return artifact.reference_kernels.is_file() and _built(artifact, standin).emulated


def repeat_kernels(
    artifact: Artifact, progress: Progress, standin: str | None = None
) -> dict[str, Any]:
    """Run each kernel alone beside its reference, with every memory access checked.

    Args:
        artifact: whose files were checked, and for which :func:`shows_kernels` is true.
        progress: is told what is done.
        standin: to run it on; None for the one of its target.

    Returns:
        The section ``kernels`` of a report, see :func:`edgec.verification.kernels.check_kernels`.

    Raises:
        UsageError: the library is none for the stand-in.
        VerificationError: a kernel doesn't compute what it should, or the references are damaged.
        ToolchainError: the stand-in can't run the library here.
    """
    progress.note("checking each kernel alone")
    if artifact.interface is not None:
        return repeat_generic_kernels(artifact, standin)
    return _built(artifact, standin).check_kernels(_tokens(artifact))


def repeat_golden(artifact: Artifact, standin: str | None = None) -> dict[str, Any] | None:
    """Run the golden inputs on a stand-in.

    Args:
        artifact: whose files were checked.
        standin: to run it on; None for the one of its target.

    Returns:
        The figures of ``check_golden``; None if the artifact has no golden outputs, because it
        was built without being run.

    Raises:
        UsageError: there is no such stand-in, or the library is none for it.
        VerificationError: outputs differ by more than the tolerance, or the file is damaged.
        ToolchainError: the stand-in can't run the library here.
    """
    if not artifact.golden.is_file():
        return None
    if artifact.interface is not None:
        return repeat_generic_golden(artifact, standin)
    golden = read_golden(artifact.golden)
    built = _built(artifact, standin)
    return check_golden(built.open(len(golden.tokens), sequences=1), golden, built.window)


def repeat_reference(
    artifact: Artifact, source: str, progress: Progress, standin: str | None = None
) -> Report:
    """Compare the artifact with the original model again, and judge it by its recipe's limits.

    The text is that of the recipe if it can be found here, else the artifact's golden inputs.

    Args:
        artifact: whose files were checked.
        source: of the original model, as in recipes; empty for the recipe's own.
        progress: is told of tokens.
        standin: to run it on; None for the one of its target.

    Returns:
        The figures of :func:`edgec.verification.run.verify`; ``text.same`` tells whether the
        text was the one of the build.

    Raises:
        UsageError: the model can't be found, there is no text, or there is no such stand-in.
        VerificationError: the artifact doesn't compute what its weights say, breaks a limit of its
            recipe, or was built from another model.
        ToolchainError: the stand-in can't run the library here, or torch is missing.
        CheckpointError: the model can't be read.
    """
    if artifact.interface is not None:
        raise UsageError(
            "an artifact of a generic model is compared with its original when it is built",
            where=str(artifact.folder),
            remedy="run edgec build with --force, or leave --reference out",
        )
    progress.note("opening the original model")
    original = find_original(artifact, source)
    documents, samples = _text(artifact, original)
    built = _built(artifact, standin)
    engine = built.open(max(map(len, samples)))
    progress.note("loading the reference")
    first, shipped = references(artifact, original)
    report = verify(
        engine,
        first,
        shipped,
        samples,
        documents=documents,
        dtype=find_scheme(original.recipe.quantization.scheme).dtype,
        progress=progress,
        extent=built.extent,
        window=built.window,
        rounds=bool(shipped.roundings),
        roundings=shipped.roundings,
    )
    text = artifact.report.get("text") or {}
    report["text"]["same"] = text.get("digest") == report["text"]["digest"]
    check_agreement(report)
    if broken := gates(report, original.recipe.quality):
        raise VerificationError(
            "; ".join(broken),
            where=str(artifact.folder),
            remedy="choose a finer quantization, or relax the limit, and build it again",
        )
    return report


def _built(artifact: Artifact, standin: str | None) -> BuiltLibrary:
    """An artifact's library as its manifest describes it."""
    manifest = artifact.manifest
    runtime, sizes = manifest["runtime"], manifest["recipe"]["context"]
    # What the library has, which may be less than the recipe asks for.
    config = artifact.chat_config
    batch = config.get("model_config", {}).get("max_batch_size", sizes["max_batch_size"])
    check_runtime(artifact.library, runtime)
    return BuiltLibrary(
        path=artifact.library,
        weights=artifact.model,
        standin=standin or manifest["standin"],
        requirements=Requirements(
            architecture=runtime["architecture"],
            cpu_features=tuple(runtime["cpu_features"]),
            cpu=manifest.get("standin_cpu"),
            limits=manifest.get("limits", {}),
        ),
        context_length=int(manifest["memory"]["context_length"]),
        prefill_chunk=int(config["prefill_chunk_size"]),
        max_batch_size=int(batch),
        window=SlidingWindow.of_recipe(sizes.get("sliding_window"), sizes.get("attention_sinks")),
        parameters=int(manifest["model"]["parameters"]),
        kernels=sorted(manifest["kernels"].get("by_name", {})),
        references=artifact.reference_kernels,
    )


def _tokens(artifact: Artifact) -> list[int]:
    """The golden inputs; ids drawn at random if the artifact was built without being run."""
    if artifact.golden.is_file():
        return list(read_golden(artifact.golden).tokens.tolist())
    vocabulary = int(artifact.chat_config["vocab_size"])
    count = min(_RANDOM_TOKENS, int(artifact.manifest["memory"]["context_length"]))
    return [int(token) for token in np.random.default_rng(0).integers(0, vocabulary, count)]


def _text(artifact: Artifact, original: Original) -> tuple[list[Document], list[list[int]]]:
    """Documents and windows; the golden inputs are one window without a document."""
    from edgec.runtime.tokenizer import Tokenizer  # noqa: PLC0415 - not needed by the other checks

    quality = original.recipe.quality
    if quality.text is not None and original.base is not None:
        documents = load_documents(quality.text, original.base)
        tokenizer = Tokenizer(artifact.model)
        return documents, windows(
            documents, tokenizer.encode, tokenizer.bos_id, quality.window, quality.tokens
        )
    if artifact.golden.is_file():
        return [], [read_golden(artifact.golden).tokens.tolist()]
    raise UsageError(
        "there is no text to compare on: the recipe isn't here and the artifact has no golden inputs",
        where=str(artifact.folder),
        remedy="build it again without --no-verify",
    )
