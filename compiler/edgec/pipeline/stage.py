"""What is declared about a stage, and the digest that names its result."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgec.files import canonical_json, digest_json
from edgec.pipeline.distributions import Installed, installed
from edgec.pipeline.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A name is also a folder and the beginning of a lock's file name.
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class StageSpec:
    """One stage of one build.

    Attributes:
        name: the stage's name, unique in a build.
        module: the module whose ``run(context)`` does the work.
        inputs: everything that the result depends on besides code and parents; flat: dotted key
            to JSON value, so that ``why`` can name what changed.
        local: what the stage needs but the result doesn't depend on; paths become text.
        parents: names of the stages whose outputs this one reads.
        code: modules, besides ``module``, whose import closure inside edgec is digested: what
            ``module`` imports by a computed name can't be seen in its source.
        distributions: installed distributions that the result depends on.
        timeout_s: wall-clock limit in seconds.
        timeout_field: what users set to change that limit.
    """

    name: str
    module: str
    inputs: dict[str, Any]
    local: dict[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    timeout_s: float = 3600.0
    timeout_field: str = "the limit"


@dataclass(frozen=True)
class StageIdentity:
    """Everything that a stage's digest covers, in a form that ``why`` can compare.

    Attributes:
        name: the stage's name.
        inputs: the declared inputs as JSON gives them back.
        code: source file, as its path below the source root, to sha256.
        distributions: distribution name to what is installed of it.
        python: major and minor version of the interpreter.
        parents: parent stage to its digest.
    """

    name: str
    inputs: dict[str, Any]
    code: dict[str, str]
    distributions: dict[str, Installed]
    python: str
    parents: dict[str, str]

    @property
    def digest(self) -> str:
        """The sha256 that names the stage's result, 64 hex digits."""
        return digest_json(self.to_json() | {"code": digest_json(self.code)})

    def to_json(self) -> dict[str, Any]:
        """The identity as plain data."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> StageIdentity:
        """The inverse of :meth:`to_json`; other keys are passed over.

        Raises:
            KeyError: if a key is missing.
            TypeError: if a distribution isn't described as :meth:`to_json` does it.
        """
        return StageIdentity(
            name=data["name"],
            inputs=data["inputs"],
            code=data["code"],
            distributions={k: Installed(**v) for k, v in data["distributions"].items()},
            python=data["python"],
            parents=data["parents"],
        )


def ordered(specs: Iterable[StageSpec]) -> list[StageSpec]:
    """The stages with each one after its parents, otherwise in the order given."""
    waiting = list(specs)
    names = [spec.name for spec in waiting]
    assert len(set(names)) == len(names), f"two stages with one name in {names}"
    placed: dict[str, StageSpec] = {}
    while waiting:
        ready = [spec for spec in waiting if all(parent in placed for parent in spec.parents)]
        assert ready, f"unknown parents or a cycle among {[spec.name for spec in waiting]}"
        placed |= {spec.name: spec for spec in ready}
        waiting = [spec for spec in waiting if spec.name not in placed]
    return list(placed.values())


def identify(specs: Iterable[StageSpec]) -> dict[str, StageIdentity]:
    """The identity of each stage, by name, parents first.

    Raises:
        ToolchainError: if a distribution isn't installed.
    """
    sources = Sources()
    python = ".".join(platform.python_version_tuple()[:2])
    identities: dict[str, StageIdentity] = {}
    for spec in ordered(specs):
        assert _NAME.fullmatch(spec.name), f"not a stage name: {spec.name!r}"
        identities[spec.name] = StageIdentity(
            name=spec.name,
            inputs=json.loads(canonical_json(spec.inputs)),
            code=code_digests(spec, sources),
            distributions={name: installed(name) for name in sorted(spec.distributions)},
            python=python,
            parents={parent: identities[parent].digest for parent in sorted(spec.parents)},
        )
    return identities


def code_digests(spec: StageSpec, sources: Sources) -> dict[str, str]:
    """The sha256 of each source file that the stage runs, by its path below the source root."""
    return sources.closure((spec.module, *spec.code))


def digests(specs: Sequence[StageSpec]) -> dict[str, str]:
    """The digest of each stage by name, without running anything.

    Raises:
        ToolchainError: if a distribution isn't installed.
    """
    return {name: identity.digest for name, identity in identify(specs).items()}
