from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from quantization_fakes import ArrayCheckpoint, Counter, parameter, small_model

from edgec.errors import CheckpointError, UsageError
from edgec.parallel import Workspace, run_all
from edgec.quantization import run
from edgec.quantization.methods import rtn
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.schemes import SCHEMES, TensorScheme

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.models.parameters import Parameter


def quantize(
    folder: Path,
    checkpoint: ArrayCheckpoint,
    parameters: Sequence[Parameter],
    name: str = "q4f16_1",
    *,
    threads: int = 1,
    progress: Counter | None = None,
) -> dict[str, TensorScheme | None]:
    scheme = SCHEMES[name]
    schemes = tensor_schemes(parameters, scheme, 32)
    folder.mkdir(exist_ok=True)
    run.quantize_checkpoint(
        checkpoint,
        parameters,
        schemes,
        scheme.dtype,
        "rtn",
        folder,
        progress or Counter(),
        threads=threads,
    )
    return schemes


def digest(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_parameter_is_that_of_its_concatenated_sources(tmp_path: Path, name: str) -> None:
    checkpoint, parameters = small_model()
    progress = Counter()
    schemes = quantize(tmp_path / "q", checkpoint, parameters, name, progress=progress)
    with QuantizedCheckpoint(tmp_path / "q") as store:
        for p in parameters:
            whole = np.concatenate([checkpoint.arrays[s.name] for s in p.sources])
            whole = whole.astype(np.float32)
            scheme = schemes[p.name]
            if scheme is None:
                found = store.plain(p.name, 0, p.shape[0])
                assert found.dtype == SCHEMES[name].dtype
                np.testing.assert_array_equal(found, whole)
                continue
            expected = rtn.quantize(whole, scheme)
            found = store.quantized(p.name, 0, p.shape[0])
            np.testing.assert_array_equal(found.codes, expected.codes)
            np.testing.assert_array_equal(found.scales, expected.scales)
    assert progress.total == progress.done == sum(a.nbytes for a in checkpoint.arrays.values())
    assert progress.unit == "bytes"


@pytest.mark.parametrize("name", ["q4f16_1", "q8f32_1", "q0f16"])
def test_bytes_depend_on_neither_threads_nor_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    checkpoint, parameters = small_model(np.float32)
    quantize(tmp_path / "whole", checkpoint, parameters, name)
    monkeypatch.setattr(run, "PIECE", 320)  # five rows, and five pieces of "norm.weight"
    monkeypatch.setattr(run, "STEP", 128)
    checkpoint.reads.clear()
    quantize(tmp_path / "blocks", checkpoint, parameters, name, threads=4)
    assert max(stop - start for n, start, stop in checkpoint.reads if n == "q.weight") == 2
    assert digest(tmp_path / "whole") == digest(tmp_path / "blocks")


def test_a_source_that_serves_two_parameters_counts_twice(tmp_path: Path) -> None:
    arrays = {"embed.weight": np.ones((4, 32), np.float16)}
    parameters = [
        parameter("embed.weight", (4, 32), "embedding"),
        parameter("head.weight", (4, 32), "head", {"embed.weight": (4, 32)}),
    ]
    progress = Counter()
    quantize(tmp_path / "q", ArrayCheckpoint(arrays), parameters, progress=progress)
    assert progress.total == progress.done == 2 * 4 * 32 * 2


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_bad_row_is_named_with_its_source_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(run, "PIECE", 192)
    monkeypatch.setattr(run, "STEP", 128)
    checkpoint, parameters = small_model()
    checkpoint.arrays["k.weight"][7, 3] = np.nan
    checkpoint.arrays["v.weight"][2, 3] = np.nan
    with pytest.raises(CheckpointError) as caught:
        quantize(tmp_path / "q", checkpoint, parameters, threads=threads)
    assert str(caught.value).startswith("memory/model.safetensors: row 7 of k.weight has a NaN; ")
    assert not (tmp_path / "q" / "quantized.json").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "value", "message"),
    [
        ("q4f16_1", "norm.weight", np.inf, "row 9 of norm.weight has an infinite weight"),
        ("q0f32", "q.weight", np.nan, "row 9 of q.weight has a NaN"),
        ("q0f16", "q.weight", 65520, "row 9 of q.weight .* overflows float16; .*q0f32"),
        ("q4f16_1", "q.weight", 1e6, "row 9 of q.weight .*1e.06.* overflows float16; .*q4f32_1"),
    ],
)
def test_values_that_cannot_be_stored_are_named(
    tmp_path: Path, name: str, tensor: str, value: float, message: str
) -> None:
    checkpoint, parameters = small_model(np.float32)
    checkpoint.arrays[tensor][9] = value
    with pytest.raises(CheckpointError, match=message):
        quantize(tmp_path / "q", checkpoint, parameters, name)


def test_the_largest_float16_is_still_stored(tmp_path: Path) -> None:
    checkpoint, parameters = small_model(np.float32)
    checkpoint.arrays["norm.weight"][0] = 65519.99
    quantize(tmp_path / "q", checkpoint, parameters, "q0f16")
    with QuantizedCheckpoint(tmp_path / "q") as store:
        assert store.plain("norm.weight", 0, 1)[0] == 65504


def test_an_unknown_method_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    checkpoint, parameters = small_model()
    with pytest.raises(UsageError, match="no quantization method 'magic'"):
        run.quantize_checkpoint(
            checkpoint, parameters, {}, "float16", "magic", tmp_path, Counter(), threads=1
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_failure_in_order_is_the_one_reported(threads: int) -> None:
    done = []

    def work(item: int, workspace: Workspace) -> None:
        assert workspace.array("x", (3,), np.float32).shape == (3,)
        if item >= 5:
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ValueError, match=r"^5$"):
        run_all(work, range(50), threads=threads)
    assert sorted(done) == [0, 1, 2, 3, 4]
