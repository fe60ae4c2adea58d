"""AMX's instructions, executed by the handler of SIGILL, against numpy and Intel's rules."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgec.standins import amx
from kernels.amx_code import (
    ARGUMENTS,
    PRODUCTS,
    R8,
    R9,
    R12,
    R13,
    RAX,
    RBP,
    RCX,
    RDI,
    RDX,
    RETURN,
    RSI,
    RSP,
    TILERELEASE,
    UNDEFINED,
    Place,
    config,
    configuration,
    execute,
    move,
    product,
    tilezero,
)

_REASON = amx.unavailable()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=_REASON)

_START = config("ldtilecfg", Place(RDI))
_END = TILERELEASE + RETURN


@pytest.fixture(autouse=True)
def _handled() -> None:
    amx.install()


def _bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16


def _product(name: str, rows: int, depth: int, columns: int, *arrays: np.ndarray) -> np.ndarray:
    """``total + left @ right`` with tiles of ``rows``, ``depth`` and ``columns`` double words."""
    total, left, right = (np.ascontiguousarray(item).copy() for item in arrays)
    layout = configuration([rows, rows, depth], [columns * 4, depth * 4, columns * 4])
    code = _START
    for tile, (register, width) in enumerate(((RCX, columns), (RSI, depth), (RDX, columns))):
        code += b"\x49\xc7\xc0" + (width * 4).to_bytes(4, "little")  # mov r8, width * 4
        code += move("tileloadd", tile, Place(register, R8))
    code += product(name, 0, 1, 2)
    code += b"\x49\xc7\xc0" + (columns * 4).to_bytes(4, "little")
    code += move("tilestored", 0, Place(RCX, R8))
    execute(code + _END, layout, left, right, total)
    return total


@pytest.mark.parametrize("shape", [(16, 16, 16), (3, 5, 7), (1, 16, 2), (16, 1, 16)], ids=str)
@pytest.mark.parametrize("name", [name for name in PRODUCTS if name != "tdpbf16ps"])
def test_integer_products_are_exact(name: str, shape: tuple[int, int, int]) -> None:
    rows, depth, columns = shape
    random = np.random.default_rng(rows)
    signs = {"s": np.int8, "u": np.uint8}
    left = random.integers(0, 256, (rows, depth * 4), dtype=np.uint8).view(signs[name[4]])
    right = random.integers(0, 256, (depth, columns, 4), dtype=np.uint8).view(signs[name[5]])
    # Sums wrap around.
    total = random.integers(-(2**31), 2**31, (rows, columns), dtype=np.int64)
    matrix = right.transpose(0, 2, 1).reshape(depth * 4, columns).astype(np.int64)
    expected = (total + left.astype(np.int64) @ matrix).astype(np.int32)
    found = _product(name, rows, depth, columns, total.astype(np.int32), left, right)
    np.testing.assert_array_equal(found, expected)


def _flushed(values: np.ndarray) -> np.ndarray:
    zeros = np.copysign(np.float32(0), values)
    return np.where(np.abs(values) < 2.0**-126, zeros, values).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 2.0**-62], ids=["common", "denormal"])
@pytest.mark.parametrize("shape", [(16, 16, 16), (3, 5, 7), (1, 16, 2)], ids=str)
def test_bf16_products_round_as_the_manual_says(shape: tuple[int, int, int], scale: float) -> None:
    rows, depth, columns = shape
    random = np.random.default_rng(depth)
    left = _bf16(random.standard_normal((rows, depth, 2)) * scale).astype(np.uint32)
    right = _bf16(random.standard_normal((depth, columns, 2)) * scale).astype(np.uint32)
    total = (random.standard_normal((rows, columns)) * scale * scale).astype(np.float32)
    a, b = ((item << 16).view(np.float32).astype(np.float64) for item in (left, right))
    # Float64 holds a product, and its sum with a float32 of like size, exactly: one rounding.
    part = np.zeros((rows, columns, 2), np.float32)
    for k in range(depth):
        for i in (0, 1):
            exact = part[..., i] + a[:, None, k, i] * b[None, k, :, i]
            part[..., i] = _flushed(exact.astype(np.float32))
    expected = _flushed(_flushed(total) + _flushed(part[..., 0] + part[..., 1]))
    words = [item[..., 0] | item[..., 1] << 16 for item in (left, right)]
    found = _product("tdpbf16ps", rows, depth, columns, total, *words)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(
    "place",
    [
        Place(RSI, R9),
        Place(RSI, R9, 4, 0),
        Place(RSI, R9, 2, -64),
        Place(RSI, RCX, 8, 4096),
        Place(R12, R9),
        Place(R13, R9, 1, 0),
        Place(RBP, RAX, 2, 0),
        Place(RSI),
    ],
    ids=str,
)
def test_tiles_are_moved_wherever_an_address_points(place: Place) -> None:
    source = np.random.default_rng(1).integers(0, 256, 1 << 16, dtype=np.uint8)
    stride = 0 if place.index is None else 96 * place.scale
    rows, width = 5, 24
    out = np.zeros((16, 64), np.uint8)
    code = b"\x41\x54\x41\x55\x55"  # push r12, r13, rbp
    code += b"\x49\x89\xf4\x49\x89\xf5\x48\x89\xf5\x4c\x89\xc8"  # r12 = r13 = rbp = rsi, rax = r9
    code += _START + move("tileloaddt1", 7, place)
    code += b"\x49\x89\xd4"  # mov r12, rdx
    code += move("tilestored", 7, Place(R12, R8))
    code += b"\x5d\x41\x5d\x41\x5c"
    layout = configuration([0] * 7 + [rows], [0] * 7 + [width])
    first = 1 << 12
    execute(code + _END, layout, source.ctypes.data + first, out, 96, 64, 96)
    begin = first + place.displacement
    expected = [source[begin + row * stride :][:width] for row in range(rows)]
    np.testing.assert_array_equal(out[:rows, :width], expected)
    assert not out[rows:].any()
    assert not out[:, width:].any()


def test_a_configuration_is_stored_and_clears_tiles() -> None:
    layout = configuration([16, 3], [64, 8])
    shown, zeros, data = np.ones(64, np.uint8), np.ones(64, np.uint8), np.ones(1024, np.uint8)
    registers = dict(zip(("layout", "shown", "zeros", "data"), ARGUMENTS, strict=False))
    code = config("ldtilecfg", Place(registers["layout"]))
    code += config("sttilecfg", Place(registers["shown"], None))
    code += move("tilestored", 0, Place(registers["data"], R8))
    code += TILERELEASE + config("sttilecfg", Place(registers["zeros"]))
    execute(code + _END, layout, shown, zeros, data, 64)
    np.testing.assert_array_equal(shown, layout)
    assert not zeros.any()
    assert not data.any()


def test_a_configuration_is_found_beside_the_code_and_on_the_stack() -> None:
    layout = configuration([2], [4])
    out = np.ones((2, 1), np.uint32)
    # Relative to the instruction that follows: over it and a jump.
    code = config("ldtilecfg", Place(None, displacement=2)) + b"\xeb\x40" + layout.tobytes()
    code += b"\x48\x83\xec\x48" + config("sttilecfg", Place(RSP, displacement=8))
    code += config("ldtilecfg", Place(RSP, displacement=8)) + b"\x48\x83\xc4\x48"
    code += tilezero(0) + move("tilestored", 0, Place(RDI, RSI))
    execute(code + _END, out, 4)
    assert not out.any()


def test_every_thread_has_its_own_tiles() -> None:
    barrier = threading.Barrier(2, timeout=30)
    out = np.zeros((2, 16, 16), np.uint32)

    def work(thread: int) -> None:
        layout = configuration([16], [64])
        source = np.full((16, 16), thread + 1, np.uint32)
        execute(_START + move("tileloadd", 0, Place(RSI, RDX)) + RETURN, layout, source, 64)
        barrier.wait()
        execute(move("tilestored", 0, Place(RDI, RSI)) + _END, out[thread], 64)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (out[0] == 1).all()
    assert (out[1] == 2).all()


def test_instructions_are_counted() -> None:
    library = amx.install()
    before = library.edgec_amx_executed(b"tilezero")
    execute(_START + tilezero(0) * 3 + _END, configuration([1], [4]))
    assert library.edgec_amx_executed(b"tilezero") == before + 3
    assert library.edgec_amx_executed(b"mov") == -1


def _alone(code: bytes, layout: np.ndarray) -> subprocess.CompletedProcess[str]:
    """Run instructions in a process of their own; the first argument is the configuration."""
    script = f"""
import faulthandler, resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler.enable()
from edgec.standins import amx
from kernels.amx_code import execute
amx.install()
execute({code!r}, np.array({layout.tolist()}, np.uint8), 64)
"""
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )


_WRONG = {
    "ldtilecfg is refused.*palette": (_START, np.full(64, 2, np.uint8)),
    "ldtilecfg is refused.*more than 16 rows": (_START, configuration([17], [64])),
    "ldtilecfg is refused.*more than 64 bytes": (_START, configuration([16], [65])),
    "ldtilecfg is refused.*rows without bytes": (_START, configuration([16], [0])),
    "tilezero is refused.*aren't configured": (tilezero(0), configuration([1], [4])),
    "tileloadd is refused.*no rows": (
        _START + move("tileloadd", 3, Place(RDI, RSI)),
        configuration([1], [4]),
    ),
    "tdpbf16ps is refused.*different ones": (
        _START + product("tdpbf16ps", 0, 0, 1),
        configuration([1, 1], [4, 4]),
    ),
    "tdpbusd is refused.*differ in rows": (
        _START + product("tdpbusd", 0, 1, 2),
        configuration([2, 1, 1], [4, 4, 4]),
    ),
    "tdpbssd is refused.*don't fit": (
        _START + product("tdpbssd", 0, 1, 2),
        configuration([1, 1, 2], [4, 4, 4]),
    ),
}


@pytest.mark.parametrize("message", _WRONG)
def test_what_a_processor_refuses_ends_the_process(message: str) -> None:
    done = _alone(_WRONG[message][0] + _END, _WRONG[message][1])
    assert done.returncode == -signal.SIGABRT
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize(
    "code",
    [UNDEFINED, b"\xc4\xe2\x7b\x5c\xc1" + RETURN],
    ids=["ud2", "tdpfp16ps"],
)
def test_other_illegal_instructions_are_passed_on(code: bytes) -> None:
    done = _alone(code, configuration([1], [4]))
    assert done.returncode == -signal.SIGILL
    assert "Fatal Python error: Illegal instruction" in done.stderr
