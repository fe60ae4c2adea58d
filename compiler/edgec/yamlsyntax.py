"""The YAML parser's complaints in plain English, with what to do about each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

# Parts of the messages of libyaml and of PyYAML's own parser: (context, problem) -> (what, remedy).
_KNOWN: tuple[tuple[str, str, str, str], ...] = (
    (
        "",
        "mapping values are not allowed",
        "a ':' stands where no key can be",
        "check the indentation, and put text that holds ': ' in quotes",
    ),
    (
        "",
        "sequence entries are not allowed",
        "a list can't start on this line",
        "start it on a line of its own, or write [a, b]",
    ),
    (
        "an alias",
        "",
        "text can't start with '*' here",
        'put it in quotes, for example "*.weight"',
    ),
    ("an anchor", "", "text can't start with '&' here", "put it in quotes"),
    ("a tag", "", "text can't start with '!' here", "put it in quotes"),
    ("", "unexpected end of stream", "a quote is opened and never closed", "close it"),
    (
        "",
        "escape",
        "a backslash in double quotes starts an unknown escape",
        "use single quotes, or write the backslash twice",
    ),
    ("", "',' or ']'", "a list that starts with '[' isn't closed", "add the missing ',' or ']'"),
    ("", "',' or '}'", "a mapping that starts with '{' isn't closed", "add the missing ',' or '}'"),
    (
        "",
        "could not find expected ':'",
        "a key has no ':' after it",
        "write 'field: value', with a space after the colon",
    ),
    (
        "",
        "node content",
        "a value is expected here",
        "write the value, or put it in quotes if it starts with a special character",
    ),
    ("", "incompatible YAML", "the %YAML line names an unknown version", "remove that line"),
    ("", "directive", "a line can't start with '%'", "remove that line, or put the text in quotes"),
)
_INDENTATION = (
    "this line doesn't fit those above it",
    "indent it like its siblings, and check that quotes above it are closed",
)
_FITS = ("expected key", "<block end>", "'-' indicator", "<document start>")


def explain(error: yaml.MarkedYAMLError, text: str) -> tuple[str, str]:
    """What is wrong and the remedy, for an error that the parser raised on ``text``."""
    context, problem = error.context or "", error.problem or ""
    mark = error.problem_mark
    if mark is not None and "cannot start any token" in problem:
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        return _bad_start(line[mark.column : mark.column + 1])
    if "tab character" in problem:
        return _bad_start("\t")
    for in_context, in_problem, what, remedy in _KNOWN:
        if in_context in context and in_problem in problem:
            return what, remedy
    if any(part in problem for part in _FITS):
        return _INDENTATION
    return f"not YAML: {problem or context}", "check the line and the one above it"


def _bad_start(character: str) -> tuple[str, str]:
    if character == "\t":
        return "a tab is used for indentation", "use spaces"
    return f"text can't start with '{character}'", "put it in quotes"


def mark_of(error: yaml.MarkedYAMLError) -> yaml.Mark | None:
    """Where to look: the start of what can't be read, or else where the parser stopped."""
    context, problem = error.context or "", error.problem or ""
    starts = ("parsing a flow", "an alias", "an anchor", "a tag")
    from_start = "unexpected end of stream" in problem or any(part in context for part in starts)
    return (error.context_mark if from_start else None) or error.problem_mark or error.context_mark
