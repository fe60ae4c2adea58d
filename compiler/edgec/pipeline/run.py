"""Build one recipe for one target: stages, budgets, artifact, history."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgec import __version__
from edgec.artifacts.artifact import open_artifact
from edgec.artifacts.assemble import Parts, assemble
from edgec.artifacts.interface import INTERFACE
from edgec.artifacts.layout import (
    CHAT_CONFIG,
    GOLDEN,
    LIBRARY_FACTS,
    REFERENCE_KERNELS,
    REPORT,
    REPORT_SCHEMA,
)
from edgec.artifacts.manifest import Provenance, build_manifest
from edgec.artifacts.memory_plan import MIB, MemoryPlan
from edgec.artifacts.web_program import PLATFORM as BROWSERS
from edgec.artifacts.web_program import model_manifest
from edgec.errors import EdgecError, VerificationError
from edgec.files import digest_json
from edgec.layouts.cache_index import read_cache_index
from edgec.layouts.parts import LIMIT
from edgec.layouts.specs import TensorSpec, weight_bytes
from edgec.pipeline.blame import blaming
from edgec.pipeline.events import Event, StageFinished, StageHit, StageStarted
from edgec.pipeline.executor import execute
from edgec.pipeline.failures import storing
from edgec.pipeline.fit import check_fit
from edgec.pipeline.history import History
from edgec.pipeline.plan import BuildPlan
from edgec.pipeline.sources import Sources
from edgec.pipeline.stage import StageIdentity, identify
from edgec.quantization.store import read_index
from edgec.quantization.takeover import TAKEN_OVER
from edgec.stages.model_file import ModelFile
from edgec.standins import NATIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from edgec.pipeline.build import StageResult
    from edgec.pipeline.filedigests import FileDigests
    from edgec.pipeline.plan_generic import GenericPlan
    from edgec.pipeline.store import Store

ASSEMBLE = "artifact"
_ASSEMBLY = ("edgec.artifacts.assemble", "edgec.artifacts.manifest")


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        artifact: the artifact's folder.
        manifest: its manifest.
        report: its report.
        stages: what was done for each stage.
        seconds: wall-clock time of the whole build.
        up_to_date: nothing was run and nothing was written.
    """

    artifact: Path
    manifest: dict[str, Any]
    report: dict[str, Any]
    stages: Mapping[str, StageResult]
    seconds: float
    up_to_date: bool


def build(
    plan: BuildPlan | GenericPlan,
    place: Path,
    store: Store,
    digests: FileDigests,
    *,
    events: Callable[[Event], None],
    force: bool = False,
    force_stages: Collection[str] = (),
    jobs: int = 2,
) -> BuildResult:
    """Run what is not in the store and bring the artifact up to date.

    Args:
        plan: what to build.
        place: the artifact's folder.
        store: of stage results.
        digests: cached sha256 of files.
        events: told what happens.
        force: run every stage again, and write the artifact again.
        force_stages: run the stages of these names again.
        jobs: stages that may run at the same time.

    Raises:
        EdgecError: a stage failed, a budget or a quality gate is broken, or the artifact can't be
            written. An artifact that was there before is untouched.
    """
    started = time.monotonic()
    with store.in_use(), blaming(plan.loaded, plan.source, store.root):
        _check_fit(plan, store)
        results = execute(
            plan.stages, store, events=events, force=force, force_stages=force_stages, jobs=jobs
        )
        identities = identify(plan.stages)
        digest = _build_digest(plan, identities)
        lock = store.lock(f"{ASSEMBLE}-{digest_json(str(place.absolute()))[:32]}")
        with storing(store.root):
            lock.acquire()
        with contextlib.closing(lock):
            manifest = _present_manifest(place, digest, digests)
            written = manifest is None or force
            report = _report(plan, results)
            if written:
                events(StageStarted(ASSEMBLE, digest))
                began = time.monotonic()
                manifest = _write(plan, place, digest, digests, results, identities, report)
                events(StageFinished(ASSEMBLE, digest, time.monotonic() - began))
            else:
                events(StageHit(ASSEMBLE, digest))
        assert manifest is not None
        History(store).record(plan.name, plan.target.name, identities)
    return BuildResult(
        place,
        manifest,
        report,
        results,
        time.monotonic() - started,
        up_to_date=not written and all(result.hit for result in results.values()),
    )


def _check_fit(plan: BuildPlan | GenericPlan, store: Store) -> None:
    """Refuse what the device can't hold, unless the library is there and hence was checked."""
    if not isinstance(plan, BuildPlan) or LIMIT not in plan.target.limits:
        return
    identity = identify(plan.stages)["compile"]
    if store.lookup(identity.name, identity.digest) is None:
        check_fit(plan)


def _build_digest(plan: BuildPlan | GenericPlan, identities: Mapping[str, StageIdentity]) -> str:
    return digest_json(
        {
            "edgec": __version__,
            "code": Sources().closure(_ASSEMBLY),
            "stages": {name: identity.digest for name, identity in identities.items()},
            "recipe": plan.loaded.recipe.model_dump(mode="json", by_alias=True),
            "overrides": list(plan.loaded.overrides),
            "target": plan.target.model_dump(mode="json", by_alias=True),
        }
    )


def _present_manifest(place: Path, digest: str, digests: FileDigests) -> dict[str, Any] | None:
    """The manifest of an artifact that is whole and comes from the same inputs."""
    try:
        artifact = open_artifact(place)
        if artifact.manifest["build"]["digest"] != digest:
            return None
        artifact.check_files(digests.sha256)
    except (EdgecError, KeyError, TypeError):
        return None
    return artifact.manifest


def _report(plan: BuildPlan | GenericPlan, results: Mapping[str, StageResult]) -> dict[str, Any]:
    head: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "recipe": plan.name,
        "target": plan.target.name,
    }
    if "quantize" in results:
        tensors = read_index(results["quantize"].path).tensors
        taken = [tensor.name for tensor in tensors if tensor.method == TAKEN_OVER]
        if taken:
            matrices = sum(tensor.method is not None for tensor in tensors)
            head["taken_over"] = {
                "matrices": matrices,
                "exactly": len(taken),
                "names": taken,
                "with_zero_points": sum(t.zeros for t in tensors if t.method == TAKEN_OVER),
                "groups": _groups(ModelFile.read(results["checkpoint"].path), frozenset(taken)),
                "stored_groups": sorted(
                    {t.group_size for t in tensors if t.method == TAKEN_OVER and t.group_size}
                ),
            }
    if "verify" not in results:
        return {**head, "verification": {"ran": False, "reason": "switched off with --no-verify"}}
    return {**head, **json.loads((results["verify"].path / REPORT).read_text())}


def _reference_kernels(standin: str, compiled: Path) -> Path | None:
    """What kernels compute one by one, for stand-ins that check that.

    Libraries for this kind of CPU run as a whole on every stand-in: they come without it.
    """
    found = compiled / REFERENCE_KERNELS
    return found if standin != NATIVE and found.is_file() else None


def _groups(model: ModelFile, names: Collection[str]) -> list[int]:
    """The sizes of the groups that matrices have in the checkpoint."""
    sources = (s for p in model.parameters if p.name in names for s in p.sources)
    return sorted({model.codes[source.name].group_size for source in sources})


def _write(
    plan: BuildPlan | GenericPlan,
    place: Path,
    digest: str,
    digests: FileDigests,
    results: Mapping[str, StageResult],
    identities: Mapping[str, StageIdentity],
    report: dict[str, Any],
) -> dict[str, Any]:
    model_folder = results["checkpoint"].path
    model = ModelFile.read(model_folder)
    library = json.loads((results["compile"].path / LIBRARY_FACTS).read_text())
    memory = _memory_plan(plan, library)
    _check_gates(plan, report)
    _check_memory(plan, memory)
    golden = results["verify"].path / GOLDEN if "verify" in results else None
    parts = Parts(
        libraries=tuple(results["compile"].path / name for name in library["files"]),
        weights=results["pack"].path,
        tokenizer=tuple(model_folder / name for name in model.files),
        chat_config=_described(results, CHAT_CONFIG),
        interface=_described(results, INTERFACE),
        report=report,
        golden=golden if golden is not None and golden.is_file() else None,
        reference_kernels=_reference_kernels(plan.target.standin, results["compile"].path),
        model_manifest=_model_manifest(plan, results["pack"].path),
    )
    made = Provenance(
        digest=digest,
        stages={name: identity.digest for name, identity in identities.items()},
        recipe=plan.loaded.recipe.model_dump(mode="json", by_alias=True),
        overrides=plan.loaded.overrides,
        target=plan.target.model_dump(mode="json", by_alias=True),
        architecture=plan.target.architecture,
        family=model.family,
        parameters=model.parameters,
        model_inputs=identities["checkpoint"].inputs,
        distributions={
            name: asdict(item)
            for identity in identities.values()
            for name, item in identity.distributions.items()
        },
        tools=identities["compile"].inputs["toolchain"],
        library=library,
    )

    def manifest(files: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        _check_size(plan, sum(int(entry["bytes"]) for entry in files.values()))
        return build_manifest(made, memory, files)

    # Remembered, so that the next build needn't read it to find it whole.
    return assemble(place, parts, manifest, digests.digests)


def _described(results: Mapping[str, StageResult], name: str) -> dict[str, Any] | None:
    """What the artifact says of itself in a file; None if this kind of artifact hasn't it."""
    stage = results["chat" if "chat" in results else "interface"]
    path = stage.path / name
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _model_manifest(plan: BuildPlan | GenericPlan, weights: Path) -> dict[str, Any] | None:
    """Of the tensors that were packed, whatever the library was compiled for."""
    if plan.target.platform != BROWSERS or not isinstance(plan, BuildPlan):
        return None
    index = read_cache_index(weights)
    tensors = (tensor for shard in index.records for tensor in shard.records)
    return model_manifest(tensors, plan.image)


def _memory_plan(plan: BuildPlan | GenericPlan, facts: dict[str, Any]) -> MemoryPlan:
    specs = [
        TensorSpec(item["name"], tuple(item["shape"]), item["dtype"], "")
        for item in facts["metadata"]["params"]
    ]
    return MemoryPlan(
        weights=weight_bytes(specs),
        kv_cache=facts["kv_cache_bytes"],
        kv_cache_dtype=facts.get("kv_cache_dtype"),
        context_length=plan.context_length,
        sliding_window=plan.window.size if plan.window else None,
        decode_weights=facts["decode_weights_bytes"],
        largest_buffer=facts["largest_buffer_bytes"],
        workspace=facts["metadata"]["memory_usage"],
    )


def _check_gates(plan: BuildPlan | GenericPlan, report: dict[str, Any]) -> None:
    broken = plan.broken_limits(report)
    if broken:
        raise VerificationError(
            f"the quality gate is broken: {'; '.join(broken)}",
            where=_place(plan, "quality"),
            remedy="choose a finer quantization, or relax the limit",
        )


def _check_memory(plan: BuildPlan | GenericPlan, memory: MemoryPlan) -> None:
    budget = plan.loaded.recipe.budget.memory_mb
    if budget is not None and memory.total > budget * MIB:
        raise VerificationError(
            f"the model takes {memory.total / MIB:.1f} MiB of memory (weights"
            f" {memory.weights / MIB:.1f}, KV cache {memory.kv_cache / MIB:.1f}, workspace"
            f" {memory.largest_workspace / MIB:.1f}) and the budget is {budget}",
            where=_place(plan, "budget", "memory_mb"),
            remedy=f"lower {plan.what_takes_memory}, quantize further, or raise it",
        )


def _check_size(plan: BuildPlan | GenericPlan, total: int) -> None:
    budget = plan.loaded.recipe.budget.artifact_mb
    if budget is not None and total > budget * MIB:
        raise VerificationError(
            f"the artifact takes {total / MIB:.1f} MiB and the budget is {budget}",
            where=_place(plan, "budget", "artifact_mb"),
            remedy="quantize further, or raise it",
        )


def _place(plan: BuildPlan | GenericPlan, *path: str) -> str:
    """A field of the recipe with the line where it was written."""
    return f"{plan.loaded.document.place(path)}: {'.'.join(path)}"
