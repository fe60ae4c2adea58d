"""Why a stage runs again: what differs from the build before, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgec.pipeline.distributions import Installed
    from edgec.pipeline.stage import StageIdentity

_WIDTH = 60
_ABSENT = "(absent)"


def explain(previous: StageIdentity | None, present: StageIdentity, *, stored: bool) -> list[str]:
    """The reasons why the stage runs, or ran, again; none if its result can be used as it is.

    Args:
        previous: what it was made from in the build to compare with; None if it wasn't made.
        present: what it is made from now.
        stored: whether the result for ``present`` is in the store.
    """
    if previous is None:
        return [] if stored else ["never built before"]
    reasons = [
        *_inputs(previous.inputs, present.inputs),
        *_code(previous.code, present.code),
        *_distributions(previous.distributions, present.distributions),
        *_python(previous.python, present.python),
        *_parents(previous.parents, present.parents),
    ]
    if not reasons and not stored:
        return ["its entry was removed from the cache, or damaged"]
    return reasons


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _inputs(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        before, after = _json(old, key), _json(new, key)
        if before != after:
            # Without quotes it reads better, unless they are the difference.
            if before.strip('"') != after.strip('"'):
                before, after = before.strip('"'), after.strip('"')
            yield f"inputs.{key}: {_short(before)} -> {_short(after)}"


def _json(inputs: dict[str, Any], key: str) -> str:
    return canonical_json(inputs[key]) if key in inputs else _ABSENT


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def _code(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for file in _changed(old, new):
        verb = "was added" if file not in old else "was removed" if file not in new else "changed"
        yield f"code: {file} {verb}"


def _distributions(old: dict[str, Installed], new: dict[str, Installed]) -> Iterator[str]:
    for name in _changed(old, new):
        before = old[name].version if name in old else _ABSENT
        after = new[name].version if name in new else _ABSENT
        if before == after:
            yield f"{name}: {after} was installed again with other files"
        else:
            yield f"{name}: {before} -> {after}"


def _python(old: str, new: str) -> Iterator[str]:
    if old != new:
        yield f"python: {old} -> {new}"


def _parents(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for name in _changed(old, new):
        if name not in new:
            yield f"stage {name} is not needed any more"
        elif name not in old:
            yield f"stage {name} is needed now"
        else:
            yield f"stage {name} changed"
