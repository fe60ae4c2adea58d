"""What was found of kernels that ran alone, as short lines for people: a label and a text each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Line = tuple[str, str]
_LISTED = 6


def kernels_text(kernels: Mapping[str, Any], standin: str) -> str:
    """The section ``kernels`` of a report in one line.

    Args:
        kernels: the section.
        standin: where they ran.
    """
    parts = [f"{len(kernels['checked'])} checked alone on the stand-in {standin}{_worst(kernels)}"]
    if kernels["unchecked"]:
        parts.append(f"{len(kernels['unchecked'])} without reference")
    if kernels["not_called"]:
        parts.append(f"{len(kernels['not_called'])} not called")
    return "; ".join(parts)


def kernel_lines(kernels: Mapping[str, Any], standin: str) -> list[Line]:
    """The same section with names, a line per figure."""
    checked = kernels["checked"]
    calls = sum(item["calls"] for item in checked.values())
    lines = [
        ("kernels", f"{len(checked)} checked alone on the stand-in {standin}, in {calls} calls"),
        ("max error", f"{max_error_text(checked)} of the scale of its results" if checked else "-"),
        ("unchecked", _counted(kernels["unchecked"], "without reference")),
        ("not called", _counted(kernels["not_called"], "")),
    ]
    if sampling := kernels.get("sampling"):
        errors = {name: {"max_error": error} for name, error in sampling.items()}
        lines.append(("sampling", f"{len(sampling)} functions, max error {max_error_text(errors)}"))
    return lines


def _worst(kernels: Mapping[str, Any]) -> str:
    return f", max error {max_error_text(kernels['checked'])}" if kernels["checked"] else ""


def max_error_text(checked: Mapping[str, Mapping[str, Any]]) -> str:
    """The largest error and whose it is."""
    name = max(checked, key=lambda item: float(checked[item]["max_error"]))
    return f"{checked[name]['max_error']:.1e} ({name})"


def _counted(names: Iterable[str], what: str) -> str:
    """How many names, and which; a long list is cut short with a count."""
    found = sorted(names)
    if not found:
        return "0"
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"{len(found)} {what}".rstrip() + f": {', '.join(found[:_LISTED])}{more}"
