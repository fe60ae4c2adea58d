"""Python and the packages that are installed; none of them is imported."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from edgec.diagnosis.check import Check
from edgec.diagnosis.requirements import LIBRARIES, PYTHON, REFERENCE, RUNTIME

if TYPE_CHECKING:
    from collections.abc import Mapping

_RELEASE = re.compile(r"\d+(?:\.\d+)*")


def check_python() -> Check:
    """Is Python new enough?"""
    wanted = ".".join(map(str, PYTHON))
    enough = sys.version_info >= PYTHON
    return Check(
        "python",
        "ok" if enough else "missing",
        f"{sys.version.split()[0]} ({sys.executable})",
        f">= {wanted}",
        "" if enough else f"install Python {wanted} or newer and make the environment again",
    )


def check_runtime_packages() -> list[Check]:
    """Is TVM there in exactly the version that was tested?"""
    checks = []
    for name, wanted in RUNTIME.items():
        found = installed(name)
        fits = found is not None and satisfies(found, wanted)
        remedy = "" if fits else f"run: pip install '{name}{wanted}'"
        checks.append(
            Check(
                name,
                "ok" if fits else "missing",
                found or "not installed",
                _shown(wanted),
                remedy,
            )
        )
    return checks


def check_libraries() -> Check:
    """Are the other packages there?"""
    problems = _problems(LIBRARIES)
    if not problems:
        return Check("libraries", "ok", f"all {len(LIBRARIES)} are there")
    return Check(
        "libraries",
        "missing",
        "; ".join(problems.values()),
        remedy="run: pip install " + " ".join(f"'{name}{LIBRARIES[name]}'" for name in problems),
    )


def check_reference() -> Check:
    """Can artifacts be compared with the original model?"""
    problems = _problems(REFERENCE)
    found = ", ".join(f"{name} {version}" for name in REFERENCE if (version := installed(name)))
    if not problems:
        return Check("reference", "ok", found)
    return Check(
        "reference",
        "warning",
        "; ".join(problems.values()),
        "torch and transformers, to compare with the original model",
        "run: pip install 'edgec[reference]', or build with --no-verify",
    )


def installed(name: str) -> str | None:
    """The installed version of a distribution; None if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version meets ``==X`` (exactly, build tags like ``+cpu`` aside) or ``>=X``."""
    operator, bound = wanted[:2], wanted[2:]
    public = version.partition("+")[0]
    assert operator in ("==", ">="), wanted
    return public == bound if operator == "==" else _release(public) >= _release(bound)


def _problems(wanted: Mapping[str, str]) -> dict[str, str]:
    problems = {}
    for name, bound in wanted.items():
        found = installed(name)
        if found is None:
            problems[name] = f"{name} is not installed"
        elif not satisfies(found, bound):
            problems[name] = f"{name} is {found}, needed is {_shown(bound)}"
    return problems


def _release(version: str) -> tuple[int, ...]:
    match = _RELEASE.match(version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _shown(wanted: str) -> str:
    return f"{wanted[:2]} {wanted[2:]}"
