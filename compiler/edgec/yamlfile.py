"""YAML files as plain data in which every value knows its line and column.

This is YAML's safe core, built from the parser's events: mappings with text keys, lists, and
scalars as YAML 1.2 reads them (as editors and JSON Schema do, so ``no`` is text and ``1e-3`` a
number). Tags, anchors and aliases are refused: no value can make a Python object or expand.
Sizes, depths and numbers are limited, and a duplicate key is an error.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from edgec import yamlsyntax
from edgec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_MAX_INTEGER = 1 << 63
_MAX_DIGITS = 32

# YAML's own set of printable characters. The parser checks it too, but says no line.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# In values escapes could still make these; they would reach terminals and file names.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One YAML value and where its parts were written.

    Attributes:
        name: the file as the user gave it, for messages.
        data: JSON values: dict, list, str, int, float, bool and None.
        places: for each path into ``data``, ``file:line:column`` of its key or list item.
    """

    name: str
    data: Any
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where ``path`` was written, or else the closest thing around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.name


def load(path: Path, *, name: str = "") -> Document:
    """Read a YAML file whose document is a mapping; an empty file is an empty mapping.

    Args:
        path: the file; at most 1 MiB of UTF-8.
        name: how messages call it, by default the path as given.

    Raises:
        UsageError: the file can't be read, isn't YAML, or breaks a limit.
    """
    shown = name or str(path)
    document = parse(_decode(_read(path, shown), shown), shown)
    if document.data is None:
        return Document(shown, {}, document.places)
    if not isinstance(document.data, dict):
        kind = "a list" if isinstance(document.data, list) else "a single value"
        raise UsageError(
            f"the file holds {kind} where a mapping of fields is expected",
            where=document.place(()),
            remedy="write one 'field: value' per line, with a space after the colon",
        )
    return document


def parse(text: str, name: str) -> Document:
    """Parse one YAML document of any kind; ``name`` stands before ``:line:column`` in messages.

    Raises:
        UsageError: the text isn't YAML of the accepted kind, or breaks a limit.
    """
    if found := _UNPRINTABLE.search(text):
        line, column = _position(text, found.start())
        raise UsageError(
            f"the character U+{ord(found.group()):04X} can't stand in YAML",
            where=f"{name}:{line}:{column}",
            remedy="remove it, and save the file as UTF-8 text",
        )
    try:
        return _Builder(name, yaml.parse(text, Loader=_Loader)).document()
    except yaml.MarkedYAMLError as error:
        mark = yamlsyntax.mark_of(error)
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        what, remedy = yamlsyntax.explain(error, text)
        raise UsageError(what, where=where, remedy=remedy) from error
    except yaml.YAMLError as error:
        raise UsageError(
            f"not YAML: {' '.join(str(error).split())}",
            where=name,
            remedy="save the file as UTF-8 text",
        ) from error


def _read(path: Path, shown: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise UsageError(f"this is {kind}", where=shown, remedy="name a YAML file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError("no such file", where=shown, remedy="check the path") from error
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise UsageError(
            f"the file can't be read ({reason})", where=shown, remedy="check the path"
        ) from error
    if len(raw) > MAX_BYTES:
        raise UsageError(
            "the file is larger than 1 MiB", where=shown, remedy="check that it is the right file"
        )
    return raw


def _decode(raw: bytes, shown: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _position(raw[: error.start].decode("utf-8", "replace"), error.start)
        raise UsageError(
            f"the byte 0x{raw[error.start]:02x} isn't UTF-8",
            where=f"{shown}:{line}:{column}",
            remedy="save the file as UTF-8 text",
        ) from error


def _position(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


class _Builder:
    """Turns parser events into data and places; counts what it has made."""

    def __init__(self, name: str, events: Iterator[Any]) -> None:
        self._name = name
        self._events = events
        self._places: dict[KeyPath, str] = {}
        self._count = 0

    def document(self) -> Document:
        next(self._events)  # the start of the stream
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            return Document(self._name, None, {(): f"{self._name}:1:1"})
        event = next(self._events)
        self._places[()] = self._at(event)
        data = self._value(event, ())
        next(self._events)  # the end of the document
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._refuse(
                after, "a second document starts here", "keep one document in a file, without '---'"
            )
        return Document(self._name, data, self._places)

    def _value(self, event: Any, path: KeyPath) -> Any:
        self._check(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path)

    def _list(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self._places[here] = self._at(event)
            items.append(self._value(event, here))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            here = (*path, key)
            if key in fields:
                line = self._places[here].split(":")[-2]
                self._refuse(
                    event,
                    f"{dotted(here)}: the key is given twice, first in line {line}",
                    "remove one of the two",
                )
            self._places[here] = self._at(event)
            fields[key] = self._value(next(self._events), here)
        return fields

    def _key(self, event: Any, path: KeyPath) -> str:
        self._check(event, path)
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "a key is a list or a mapping", "write a name before the colon")
        if event.value == "<<" and event.implicit[0]:
            self._refuse(event, "merge keys ('<<') aren't supported", "write the fields out")
        return self._text(event)

    def _check(self, event: Any, path: KeyPath) -> None:
        self._count += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse(
                event,
                "anchors and aliases ('&name', '*name') aren't supported",
                "put text that starts with & or * in quotes, and write repeated values out",
            )
        if event.tag is not None:
            self._refuse(
                event,
                f"the tag {event.tag!r} isn't supported",
                "write the plain value, in quotes if text starts with '!'",
            )
        if len(path) > MAX_DEPTH:
            self._refuse(event, f"values are nested deeper than {MAX_DEPTH} levels", "flatten them")
        if self._count > MAX_VALUES:
            self._refuse(
                event, f"there are more than {MAX_VALUES:,} values", "check that the file is right"
            )

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0]:  # quoted, or a block of text
            return self._text(event)
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        integer = _INTEGER.fullmatch(text) or _BASED.fullmatch(text)
        if not integer and not _FLOAT.fullmatch(text):
            return self._text(event)
        if len(text) <= _MAX_DIGITS:
            based = text.startswith(("0x", "0o"))
            number = int(text, 0 if based else 10) if integer else float(text)
            if abs(number) < _MAX_INTEGER if integer else math.isfinite(number):
                return number
        return self._refuse(
            event, f"the number {text[:40]} is too large", "write a shorter one, or quote text"
        )

    def _text(self, event: Any) -> str:
        if found := _CONTROL.search(event.value):
            self._refuse(
                event, f"the text holds the control character {found.group()!a}", "remove it"
            )
        return str(event.value)

    def _at(self, event: Any) -> str:
        mark = event.start_mark
        return f"{self._name}:{mark.line + 1}:{mark.column + 1}"

    def _refuse(self, event: Any, what: str, remedy: str) -> NoReturn:
        raise UsageError(what, where=self._at(event), remedy=remedy)


def dotted(path: KeyPath) -> str:
    """A path as people write it: ``quantization.overrides.0.bits``."""
    return ".".join(map(_plain_key, path))


def _plain_key(key: str | int) -> str:
    if isinstance(key, int) or _PLAIN_KEY.fullmatch(key):
        return str(key)
    return repr(key[:40])
