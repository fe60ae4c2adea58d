"""Types of kernel arguments: DLPack's (code, bits, lanes) and TVM's names for them."""

from __future__ import annotations

import re

from edgec.libraries.cursor import damaged

_HANDLE = (3, 64)
_BOOL = (6, 8)
# Codes whose names are followed by the number of bits.
_SIZED = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex"}
# Codes that have one number of bits, which isn't named.
_WHOLE = {
    _HANDLE: "handle",
    _BOOL: "bool",
    (7, 8): "float8_e3m4",
    (8, 8): "float8_e4m3",
    (9, 8): "float8_e4m3b11fnuz",
    (10, 8): "float8_e4m3fn",
    (11, 8): "float8_e4m3fnuz",
    (12, 8): "float8_e5m2",
    (13, 8): "float8_e5m2fnuz",
    (14, 8): "float8_e8m0fnu",
    (15, 6): "float6_e2m3fn",
    (16, 6): "float6_e3m2fn",
    (17, 4): "float4_e2m1fn",
}
_CODES = {name: code for code, name in _SIZED.items()}
_WHOLE_CODES = {name: pair for pair, name in _WHOLE.items()}
_NAME = re.compile(r"([a-z]+)([1-9][0-9]*)")
_VECTOR = re.compile(r"(.+[^x])x([1-9][0-9]*)")


def type_name(code: int, bits: int, lanes: int, where: str) -> str:
    """TVM's name of a type, such as ``"handle"``, ``"int32"``, ``"float16x4"``.

    Raises:
        VerificationError: there is no such type.
    """
    name = _WHOLE.get((code, bits))
    if name is None and code in _SIZED and bits:
        name = f"{_SIZED[code]}{bits}"
    if name is None or not lanes:
        raise damaged(f"there is no argument type ({code}, {bits}, {lanes})", where)
    return name if lanes == 1 else f"{name}x{lanes}"


def type_code(name: str) -> tuple[int, int, int]:
    """The inverse of :func:`type_name`: code, bits, lanes."""
    lanes = 1
    if vector := _VECTOR.fullmatch(name):
        name, lanes = vector[1], int(vector[2])
    if name in _WHOLE_CODES:
        return (*_WHOLE_CODES[name], lanes)
    sized = _NAME.fullmatch(name)
    assert sized, name
    return _CODES[sized[1]], int(sized[2]), lanes
