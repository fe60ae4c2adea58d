"""What each stage of a build would do now, and why: the store and the last builds compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.pipeline.history import History
from edgec.pipeline.stage import identify
from edgec.pipeline.why import explain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.pipeline.history import PastBuild
    from edgec.pipeline.stage import StageIdentity, StageSpec
    from edgec.pipeline.store import Store


@dataclass(frozen=True)
class StageDiagnosis:
    """One stage.

    Attributes:
        name: the stage's name.
        digest: names its result, 64 hex digits.
        stored: whether that result is in the store; otherwise the stage runs.
        reasons: why it runs; for a stored one, what differs from the build compared with.
    """

    name: str
    digest: str
    stored: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """All stages of a build.

    Attributes:
        changed: whether anything differs from the last build.
        last: when that ended, ISO 8601 in UTC; None if there is none.
        compared: when the build ended that the reasons compare with: the last one if anything
            changed since, otherwise the one before it; None if there is none.
        stages: parents first.
    """

    changed: bool
    last: str | None
    compared: str | None
    stages: tuple[StageDiagnosis, ...]


def diagnose(specs: Sequence[StageSpec], store: Store, recipe: str, target: str) -> Diagnosis:
    """Compare a build with the last one of the same recipe and target.

    If nothing changed, the reasons are those for which the stages ran in the last build.

    Args:
        specs: the stages.
        store: of their results.
        recipe: its name.
        target: its name.

    Raises:
        ToolchainError: if a distribution isn't installed.
        CacheError: if the store can't be read.
    """
    present = identify(specs)
    history = History(store)
    builds = history.builds(recipe, target)
    last = builds[0] if builds else None
    changed = last is None or _digests(last.stages) != _digests(present)
    compared = last if changed else history.previous(recipe, target, present)

    def reasons(name: str, *, stored: bool) -> list[str]:
        if not stored or changed:
            return explain(_stage(last, name), present[name], stored=stored)
        before = _stage(compared, name)
        return explain(before, present[name], stored=before is not None)

    def stage(name: str, digest: str) -> StageDiagnosis:
        stored = store.lookup(name, digest) is not None
        return StageDiagnosis(name, digest, stored, tuple(reasons(name, stored=stored)))

    return Diagnosis(
        changed=changed,
        last=last.time if last else None,
        compared=compared.time if compared else None,
        stages=tuple(stage(name, identity.digest) for name, identity in present.items()),
    )


def _digests(stages: Mapping[str, StageIdentity]) -> dict[str, str]:
    return {name: identity.digest for name, identity in stages.items()}


def _stage(build: PastBuild | None, name: str) -> StageIdentity | None:
    return build.stages.get(name) if build else None
