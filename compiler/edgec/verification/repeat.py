"""Repeat the checks of a finished artifact: its files, its golden outputs, the whole comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import UsageError, VerificationError
from edgec.quantization.schemes import find_scheme
from edgec.runtime.compatibility import check_runtime
from edgec.runtime.engine import Capacity
from edgec.standins import Requirements, find_standin
from edgec.verification.golden import check_golden
from edgec.verification.golden_file import read_golden
from edgec.verification.original import find_original, references
from edgec.verification.run import verify
from edgec.verification.text import load_documents, windows
from edgec.verification.verdict import check_agreement, gates

if TYPE_CHECKING:
    from edgec.artifacts.artifact import Artifact
    from edgec.progress import Progress
    from edgec.verification.interfaces import Engine
    from edgec.verification.original import Original
    from edgec.verification.run import Report
    from edgec.verification.text import Document

# Several sequences at once, and room for chunks that end unevenly.
_SEQUENCES_AT_ONCE = 4


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


def repeat_golden(artifact: Artifact) -> dict[str, Any] | None:
    """Run the golden inputs on the target's stand-in.

    Returns:
        The figures of ``check_golden``; None if the artifact has no golden outputs, because it
        was built without being run.

    Raises:
        VerificationError: outputs differ by more than the tolerance, or the file is damaged.
        ToolchainError: the stand-in can't run the library here.
    """
    if not artifact.golden.is_file():
        return None
    golden = read_golden(artifact.golden)
    return check_golden(_engine(artifact, tokens=len(golden.tokens), sequences=1), golden)


def repeat_reference(artifact: Artifact, source: str, progress: Progress) -> Report:
    """Compare the artifact with the original model again, and judge it by its recipe's limits.

    The text is that of the recipe if it can be found here, else the artifact's golden inputs.

    Args:
        artifact: whose files were checked.
        source: of the original model, as in recipes; empty for the recipe's own.
        progress: is told of tokens.

    Returns:
        The figures of :func:`edgec.verification.run.verify`; ``text.same`` tells whether the
        text was the one of the build.

    Raises:
        UsageError: the model can't be found, or there is no text.
        VerificationError: the artifact doesn't compute what its weights say, breaks a limit of its
            recipe, or was built from another model.
        ToolchainError: the stand-in can't run the library here, or torch is missing.
        CheckpointError: the model can't be read.
    """
    progress.note("opening the original model")
    original = find_original(artifact, source)
    documents, samples = _text(artifact, original)
    engine = _engine(artifact, tokens=max(map(len, samples)), sequences=_SEQUENCES_AT_ONCE)
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
    )
    built = artifact.report.get("text") or {}
    report["text"]["same"] = built.get("digest") == report["text"]["digest"]
    check_agreement(report)
    if broken := gates(report, original.recipe.quality):
        raise VerificationError(
            "; ".join(broken),
            where=str(artifact.folder),
            remedy="choose a finer quantization, or relax the limit, and build it again",
        )
    return report


def _engine(artifact: Artifact, *, tokens: int, sequences: int) -> Engine:
    runtime = artifact.manifest["runtime"]
    check_runtime(artifact.library, runtime)
    sizes = artifact.manifest["recipe"]["context"]
    count = min(sequences, int(sizes["max_batch_size"]))
    length = int(artifact.manifest["memory"]["context_length"])
    return find_standin(artifact.manifest["standin"]).open_engine(
        artifact.library,
        artifact.model,
        Requirements(
            architecture=runtime["architecture"],
            cpu_features=tuple(runtime["cpu_features"]),
            cpu=artifact.manifest.get("standin_cpu"),
            limits=artifact.manifest.get("limits", {}),
        ),
        capacity=Capacity(
            sequences=count,
            tokens=min(length, count * tokens),
            prefill_chunk=min(int(sizes["prefill_chunk"]), length),
        ),
    )


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
