"""Is a ``.pt2`` file only data? What torch reads of it without looking could run code.

torch unpickles example inputs, tensors of some kinds and custom objects, evaluates expressions of
sizes, and finds operators by any dotted name. Programs need none of that beyond tensors, simple
expressions and torch's operators, so whatever else is in a file is refused before torch opens it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LARGEST_JSON = 256 << 20
_NAMES = {"Add", "Mul", "Pow", "Integer", "FloorDiv", "CleanDiv", "Mod", "PythonMod", "Min", "Max"}
_WRITTEN_SYMBOL = re.compile(r"Symbol\('([suz]f?\d+)'(?:, \w+=(?:True|False))*\)")
_SYMBOL = re.compile(r"[suz]f?\d+")
_WORD = re.compile(r"[A-Za-z_]\w*")
_CHARACTERS = re.compile(r"[\w+\-*/(), ]*")
_OPERATOR = re.compile(r"(torch\.ops\.\w+(\.\w+)*|_operator\.\w+|torch\.sym_\w+|math\.\w+)")
_REMEDY = "write it with torch.export.save of a model of tensors only"


def check_archive(path: Path) -> None:
    """Raise unless everything that torch would interpret is harmless.

    Raises:
        CheckpointError: it is missing, no archive, or has pickled or custom objects, expressions
            or operators of other kinds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, str(path))
    except FileNotFoundError as error:
        raise CheckpointError("the file is missing", where=str(path)) from error
    except (zipfile.BadZipFile, OSError, EOFError, json.JSONDecodeError, UnicodeError) as error:
        raise CheckpointError(
            f"it is damaged or no exported program: {error}", where=str(path), remedy=_REMEDY
        ) from error


def _check(archive: zipfile.ZipFile, where: str) -> None:
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise CheckpointError("two entries have the same name", where=where, remedy=_REMEDY)
    if not any(re.search(r"(^|/)models/[^/]+\.json$", name) for name in names):
        raise CheckpointError("there is no program in it", where=where, remedy=_REMEDY)
    for name in names:
        inside = f"{where}: {name}"
        base = name.rsplit("/", 1)[-1]
        if name.endswith(".json"):
            if archive.getinfo(name).file_size > _LARGEST_JSON:
                raise CheckpointError("the entry is too large", where=inside, remedy=_REMEDY)
            _check_json(json.loads(archive.read(name)), inside)
        elif "/sample_inputs/" in name:
            _check_pickle(archive.read(name), inside)
        elif base.startswith(("custom_obj", "opaque_obj")) or base.endswith((".pt", ".so", ".pkl")):
            raise CheckpointError("the entry is a pickled object", where=inside, remedy=_REMEDY)


def _check_pickle(data: bytes, where: str) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise CheckpointError(
            "the example inputs aren't tensors only", where=where, remedy=_REMEDY
        ) from error


def _check_json(data: Any, where: str) -> None:
    for key, value in _pairs(data):
        if key == "use_pickle" and value is not False:
            what = "a tensor is pickled"
        elif key == "path_name" and str(value).startswith(("custom_obj", "opaque_obj")):
            what = "there is a custom object"
        elif key == "target" and not _OPERATOR.fullmatch(str(value)):
            what = f"{value!r} is no operator of torch"
        elif key == "expr_str" and not _is_size(str(value)):
            what = f"{value!r} is no expression of sizes"
        else:
            continue
        raise CheckpointError(what, where=where, remedy=_REMEDY)


def _is_size(text: str) -> bool:
    text = _WRITTEN_SYMBOL.sub(r"\1", text)
    words = _WORD.findall(text)
    known = all(word in _NAMES or _SYMBOL.fullmatch(word) for word in words)
    return known and _CHARACTERS.fullmatch(text) is not None


def _pairs(data: Any) -> Iterator[tuple[str, Any]]:
    """Keys with a text, number or truth value, however deep."""
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key, value in item.items():
                if isinstance(value, (dict, list)):
                    waiting.append(value)
                else:
                    yield str(key), value
        elif isinstance(item, list):
            waiting.extend(item)
