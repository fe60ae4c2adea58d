"""The targets as a list for people."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.errors import ToolchainError
from edgec.target.host import missing_features
from edgec.target.load import list_targets, load_profile, resolve_host


@dataclass(frozen=True)
class TargetSummary:
    """One line of a list of targets.

    Attributes:
        name: the target's name.
        description: which devices it is for, one line.
        abstract: whether it only serves to be extended.
        extends: the profile it starts from, or None.
        platform: how the library is made and packaged.
        standin: what runs the library when it is verified.
        cpu_features: flags of ``/proc/cpuinfo`` that the library needs.
        missing: those that this machine lacks; None if that can't be found out.
        is_host: whether ``host`` means this target here.
    """

    name: str
    description: str
    abstract: bool
    extends: str | None
    platform: str
    standin: str
    cpu_features: tuple[str, ...]
    missing: tuple[str, ...] | None
    is_host: bool


def summaries() -> list[TargetSummary]:
    """All targets, abstract ones too, sorted by name.

    Raises:
        UsageError: one of the files can't be accepted.
    """
    try:
        host = resolve_host()
    except ToolchainError:
        host = ""
    return [_summary(name, host) for name in list_targets(abstract=True)]


def _summary(name: str, host: str) -> TargetSummary:
    target = load_profile(name)
    missing: tuple[str, ...] | None
    try:
        missing = tuple(missing_features(target))
    except ToolchainError:
        missing = None
    return TargetSummary(
        name=name,
        description=target.description,
        abstract=target.abstract,
        extends=target.lineage[-2] if len(target.lineage) > 1 else None,
        platform=target.platform,
        standin=target.standin,
        cpu_features=target.cpu_features,
        missing=missing,
        is_host=name == host,
    )
