"""What the last builds of each recipe for each target were made from, for ``why``."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.files import digest_json, pretty_json, write_atomic
from edgec.pipeline.failures import storing
from edgec.pipeline.stage import StageIdentity

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.pipeline.store import Store

_SCHEMA = "edgec.history/v1"
_KEPT = 8


@dataclass(frozen=True)
class PastBuild:
    """One build: when it ended (ISO 8601 in UTC), and what each stage was made from."""

    time: str
    stages: dict[str, StageIdentity]


class History:
    """The last builds that differ from each other, in the cache of ``store``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.root / "history"

    def builds(self, recipe: str, target: str) -> list[PastBuild]:
        """The remembered builds, the newest first; a damaged record counts as none."""
        try:
            data = json.loads(self._path(recipe, target).read_text(encoding="utf-8"))
            if data["schema"] != _SCHEMA:
                return []
            return [_past_build(build) for build in data["builds"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def previous(
        self, recipe: str, target: str, present: dict[str, StageIdentity]
    ) -> PastBuild | None:
        """The newest build made from something else than ``present``; None if there is none."""
        for build in self.builds(recipe, target):
            if _digests(build.stages) != _digests(present):
                return build
        return None

    def record(self, recipe: str, target: str, stages: dict[str, StageIdentity]) -> None:
        """Remember a build that succeeded; one equal to the newest is remembered already.

        Raises:
            CacheError: if it can't be written.
        """
        with storing(self._store.root), self._store.in_use(), self._store.lock("history").held():
            builds = self.builds(recipe, target)
            if builds and _digests(builds[0].stages) == _digests(stages):
                return
            now = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
            kept = [PastBuild(now, stages), *builds][:_KEPT]
            data = {
                "schema": _SCHEMA,
                "recipe": recipe,
                "target": target,
                "builds": [_json(build) for build in kept],
            }
            self._folder.mkdir(exist_ok=True)
            write_atomic(self._path(recipe, target), pretty_json(data))

    def _path(self, recipe: str, target: str) -> Path:
        return self._folder / f"{digest_json([recipe, target])[:32]}.json"


def _digests(stages: dict[str, StageIdentity]) -> dict[str, str]:
    return {name: identity.digest for name, identity in stages.items()}


def _json(build: PastBuild) -> dict[str, Any]:
    stages = {name: identity.to_json() for name, identity in build.stages.items()}
    return {"time": build.time, "stages": stages}


def _past_build(data: dict[str, Any]) -> PastBuild:
    stages = {name: StageIdentity.from_json(value) for name, value in data["stages"].items()}
    return PastBuild(data["time"], stages)
