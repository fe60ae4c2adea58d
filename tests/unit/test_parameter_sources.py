"""The rows of a checkpoint's tensor in the order of the parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantization_fakes import ArrayCheckpoint, Counter

from edgec.checkpoints.codes import CodesForm
from edgec.errors import CheckpointError
from edgec.models.parameters import Parameter, Source
from edgec.quantization import run
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.schemes import SCHEMES
from edgec.stages.model_file import ModelFile

if TYPE_CHECKING:
    from pathlib import Path

SIZES = st.integers(1, 5)


@given(SIZES, SIZES, SIZES, st.data())
def test_blocks_of_groups_come_together(
    groups: int, blocks: int, size: int, data: st.DataObject
) -> None:
    count = groups * blocks * size
    rows = np.arange(count)
    wanted = rows.reshape(groups, blocks, size).swapaxes(0, 1).reshape(-1)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    runs = list(Source("w", (count, 1), (groups, blocks)).runs(start, stop))
    found = [rows[first : first + length] for first, length in runs if length]
    np.testing.assert_array_equal(np.concatenate([[], *found]), wanted[start:stop])


@pytest.mark.parametrize("scheme", ["q4f16_1", "q0f32"])
def test_they_are_quantized_in_that_order_whatever_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    weight = np.random.default_rng(0).standard_normal((24, 32)).astype(np.float32)
    checkpoint = ArrayCheckpoint({"qkv.weight": weight, "qkv.bias": weight[:, 0].copy()})
    ordered = weight.reshape(4, 3, 2, 32).swapaxes(0, 1).reshape(24, 32)
    plain = ArrayCheckpoint({"qkv.weight": ordered, "qkv.bias": ordered[:, 0].copy()})
    monkeypatch.setattr(run, "STEP", 5 * 32)
    results = []
    for number, (tensors, interleaved) in enumerate(((checkpoint, (4, 3)), (plain, (1, 1)))):
        parameters = [
            Parameter(
                "w.weight", (24, 32), "linear", (Source("qkv.weight", (24, 32), interleaved),)
            ),
            Parameter("w.bias", (24,), "bias", (Source("qkv.bias", (24,), interleaved),)),
        ]
        folder = tmp_path / str(number)
        folder.mkdir()
        schemes = tensor_schemes(parameters, SCHEMES[scheme], 32)
        run.quantize_checkpoint(
            tensors, parameters, schemes, SCHEMES[scheme].dtype, "rtn", folder, Counter(), threads=1
        )
        with QuantizedCheckpoint(folder) as store:
            results.append(
                [
                    store.stored(name, 0, 24)
                    for name in ("w.bias", "w.weight" if scheme == "q0f32" else "w.weight#codes")
                ]
            )
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_offset_is_added_before_rounding(tmp_path: Path) -> None:
    weight = np.float32([0.25, -1.0, 1e-4])
    parameter = Parameter("norm.weight", (3,), "norm", (Source("norm", (3,), offset=1.0),))
    run.quantize_checkpoint(
        ArrayCheckpoint({"norm": weight}),
        [parameter],
        tensor_schemes([parameter], SCHEMES["q4f16_1"], 32),
        "float16",
        "rtn",
        tmp_path,
        Counter(),
        threads=1,
    )
    with QuantizedCheckpoint(tmp_path) as store:
        found = store.stored("norm.weight", 0, 3)
    np.testing.assert_array_equal(found, (weight + 1).astype(np.float16))


def test_a_bad_row_is_named_as_the_checkpoint_has_it(tmp_path: Path) -> None:
    weight = np.ones((24, 32), np.float32)
    weight[7, 3] = np.nan
    parameter = Parameter("w.weight", (24, 32), "linear", (Source("qkv", (24, 32), (4, 3)),))
    with pytest.raises(CheckpointError, match=r"row 7 of qkv has a NaN"):
        run.quantize_checkpoint(
            ArrayCheckpoint({"qkv": weight}),
            [parameter],
            tensor_schemes([parameter], SCHEMES["q4f16_1"], 32),
            "float16",
            "rtn",
            tmp_path,
            Counter(),
            threads=1,
        )


def test_the_order_and_the_codes_are_kept_in_the_model_file(tmp_path: Path) -> None:
    parameter = Parameter("w", (6, 2), "linear", (Source("qkv", (6, 2), (2, 3), 1.0),))
    codes = {"qkv": CodesForm(4, 128, "float16", zeros=True)}
    ModelFile("gpt_neox", {}, (parameter,), (), codes).write(tmp_path)
    assert ModelFile.read(tmp_path).parameters == (parameter,)
    assert ModelFile.read(tmp_path).codes == codes
