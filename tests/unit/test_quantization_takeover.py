"""Codes of a checkpoint in the quantized one: groups in parts, wider codes, fused with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from quantization_fakes import ArrayCheckpoint, Counter, parameter

from edgec.checkpoints.code_forms import code_forms
from edgec.checkpoints.codes import Codes, CodesForm
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.run import quantize_checkpoint
from edgec.quantization.schemes import Scheme
from edgec.quantization.store import read_index
from edgec.quantization.takeover import taken_over
from edgec.quantization.tensors import QuantizedTensor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import pytest

K = 256


class CodedCheckpoint(ArrayCheckpoint):
    """Tensors of which some are codes."""

    def __init__(self, codes: dict[str, Codes], arrays: dict[str, npt.NDArray[Any]]) -> None:
        values = {name: _values(item) for name, item in codes.items()}
        super().__init__({**values, **arrays})
        self._codes = codes

    def names(self) -> list[str]:
        return sorted(self.arrays)

    def codes(self, name: str) -> CodesForm | None:
        item = self._codes.get(name)
        if item is None:
            return None
        dtype = "float16" if item.scales.dtype == np.float16 else "float32"
        return CodesForm(item.bits, item.group_size, dtype, item.zeros is not None)  # type: ignore[arg-type]

    def code_rows(self, name: str, start: int, stop: int) -> Codes:
        item = self._codes[name]
        zeros = None if item.zeros is None else item.zeros[start:stop]
        rows = item.codes[start:stop], item.scales[start:stop], zeros
        return Codes(*rows, item.bits, item.group_size)


def _values(item: Codes) -> npt.NDArray[np.float32]:
    return QuantizedTensor(item.codes, item.scales, item.bits, item.zeros).dequantize()


def coded(seed: int, rows: int, bits: int, group: int, *, zeros: bool) -> Codes:
    random = np.random.default_rng(seed)
    end = 1 << (bits - 1)
    shape = (rows, K // group)
    return Codes(
        random.integers(-end, end, (rows, K)).astype(np.int8),
        random.standard_normal(shape).astype(np.float16),
        random.integers(-end, end, shape).astype(np.int8) if zeros else None,
        bits,
        group,
    )


@st.composite
def sources(draw: st.DrawFn) -> dict[str, Codes]:
    names = draw(st.sampled_from([["q"], ["q", "k"], ["q", "k", "v"]]))
    return {
        name: coded(
            draw(st.integers(0, 1 << 20)),
            draw(st.integers(1, 9)),
            draw(st.sampled_from([4, 8])),
            draw(st.sampled_from([16, 32, 64, 128, 256])),
            zeros=draw(st.booleans()),
        )
        for name in names
    }


@given(codes=sources(), bits=st.sampled_from([4, 8]), group=st.sampled_from([16, 32, 64]))
@settings(max_examples=60, deadline=None)
def test_codes_that_fit_keep_their_values_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, codes: dict[str, Codes], bits: int, group: int
) -> None:
    folder = tmp_path_factory.mktemp("q")
    rows = np.random.default_rng(1).standard_normal((5, K), np.float32)
    checkpoint = CodedCheckpoint(codes, {"plain": rows})
    shapes = {name: item.codes.shape for name, item in codes.items()} | {"plain": (5, K)}
    count = sum(shape[0] for shape in shapes.values())
    parameters = [parameter("fused.weight", (count, K), "linear", shapes)]
    forms = code_forms(checkpoint, parameters)  # type: ignore[arg-type]
    scheme = Scheme("x", bits, "float16", "")
    schemes = tensor_schemes(parameters, scheme, group, codes=forms)
    quantize_checkpoint(
        *(checkpoint, parameters, schemes, "float16", "rtn", folder, Counter()),  # type: ignore[arg-type]
        threads=1,
    )
    assert taken_over(checkpoint, parameters, schemes) == []  # type: ignore[arg-type]
    fitting = {n for n, f in forms.items() if f.bits <= bits and f.group_size % group == 0}
    (stored,) = read_index(folder).tensors
    assert stored.method == ("checkpoint, rtn" if fitting else "rtn")
    assert stored.zeros == any(codes[name].zeros is not None for name in fitting)
    with QuantizedCheckpoint(folder) as quantized:
        found = quantized.quantized("fused.weight", 0, count)
    values, row = found.dequantize(), 0
    for name, shape in shapes.items():
        mine = slice(row, row + shape[0])
        row += shape[0]
        if name in fitting:
            np.testing.assert_array_equal(found.codes[mine], codes[name].codes)
            np.testing.assert_array_equal(values[mine], checkpoint.arrays[name])
        elif found.zeros is not None:
            assert not found.zeros[mine].any()


def test_a_parameter_of_codes_alone_is_taken_over(tmp_path: Path) -> None:
    codes = {"q": coded(1, 4, 4, 128, zeros=True), "k": coded(2, 3, 4, 64, zeros=False)}
    checkpoint = CodedCheckpoint(codes, {})
    parameters = [parameter("qk.weight", (7, K), "linear", {"q": (4, K), "k": (3, K)})]
    forms = code_forms(checkpoint, parameters)  # type: ignore[arg-type]
    schemes = tensor_schemes(parameters, Scheme("x", 4, "float16", ""), 32, codes=forms)
    assert taken_over(checkpoint, parameters, schemes) == ["qk.weight"]  # type: ignore[arg-type]
    quantize_checkpoint(
        *(checkpoint, parameters, schemes, "float16", "rtn", tmp_path, Counter()),  # type: ignore[arg-type]
        threads=2,
    )
    with QuantizedCheckpoint(tmp_path) as quantized:
        assert quantized.scheme("qk.weight") == schemes["qk.weight"]
        found = quantized.quantized("qk.weight", 0, 7)
    assert found.zeros is not None
    np.testing.assert_array_equal(found.zeros[:4], np.repeat(codes["q"].zeros, 4, axis=1))
    np.testing.assert_array_equal(found.zeros[4:], 0)
    np.testing.assert_array_equal(found.scales[4:], np.repeat(codes["k"].scales, 2, axis=1))
