"""Checks of generic models without a model: samples, errors, limits, golden files, the interface."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file

from edgec.artifacts.interface import (
    INTERFACE,
    Embedding,
    ModelInterface,
    TensorInterface,
    read_interface,
)
from edgec.artifacts.library_metadata import NO_CACHE, generic_metadata
from edgec.checkpoints.safetensors_writer import write_safetensors
from edgec.errors import VerificationError
from edgec.importers.files import source_files
from edgec.layouts.specs import TensorSpec
from edgec.progress import Silent
from edgec.runtime.embedding import pool
from edgec.verification.generic import (
    Models,
    broken_limit,
    check_outputs,
    compare,
    relative_error,
    run_samples,
)
from edgec.verification.golden_tensors import (
    GoldenTensors,
    check_golden_tensors,
    read_golden_tensors,
    write_golden_tensors,
)
from edgec.verification.samples import sample_inputs

if TYPE_CHECKING:
    from pathlib import Path

TEXT = ModelInterface(
    "prefill",
    (
        TensorInterface("input_ids", ("batch", "length"), "int32"),
        TensorInterface("attention_mask", ("batch", "length"), "int32"),
    ),
    (TensorInterface("states", ("batch", "length", 8), "float32"),),
    {"batch": 4, "length": 9},
    Embedding("mean", normalize=True),
)
SQUARE = ModelInterface(
    "main",
    (TensorInterface("x", ("n", 2), "float32"),),
    (TensorInterface("y", ("n", 2), "float32"),),
    {"n": 5},
)


def test_samples_are_the_same_each_time_and_within_bounds() -> None:
    first = sample_inputs(TEXT, {"input_ids": (5, 30)}, 4)
    again = sample_inputs(TEXT, {"input_ids": (5, 30)}, 4)
    assert [sample["input_ids"].shape for sample in first][:2] == [(3, 9), (1, 1)]
    for sample, other in zip(first, again, strict=True):
        ids, mask = sample["input_ids"], sample["attention_mask"]
        np.testing.assert_array_equal(ids, other["input_ids"])
        assert ids.dtype == mask.dtype == np.int32
        assert ids.shape == mask.shape
        assert ids.shape[0] <= 4
        assert ids.shape[1] <= 9
        assert ids.min() >= 5
        assert ids.max() < 30
        # Each row attends to something, and padding comes last.
        assert (mask[:, 0] == 1).all()
        assert (np.diff(mask, axis=1) <= 0).all()


def test_a_model_of_fixed_sizes_is_called_once() -> None:
    fixed = ModelInterface("main", (TensorInterface("x", (2, 3), "float32"),), (), {})
    (sample,) = sample_inputs(fixed, {}, 5)
    assert sample["x"].shape == (2, 3)
    assert np.abs(sample["x"]).max() <= 1


def test_errors_are_told_apart() -> None:
    models = Models(
        artifact=lambda given: [given[0] * 2.00002],
        original=lambda given: [given[0] * 2.5],
        shipped=lambda given: [given[0] * 2.0],
    )
    results = run_samples(models, sample_inputs(SQUARE, {}, 2), Silent())
    report = compare(SQUARE, results, "float32")
    errors = report["outputs"]["y"]
    assert errors["compiler"] == pytest.approx(1e-5, rel=0.01)
    assert errors["quantizer"] == pytest.approx(0.2)
    assert errors["total"] == pytest.approx(0.2, rel=1e-3)
    check_outputs(report)
    assert broken_limit(report, 0.3) is None
    assert broken_limit(report, None) is None
    assert "y is off by 0.2 of its scale, above the limit of 0.1" in str(broken_limit(report, 0.1))


def test_a_compiler_that_is_wrong_fails() -> None:
    models = Models(
        artifact=lambda given: [given[0] * 1.001],
        original=lambda given: [given[0]],
        shipped=lambda given: [given[0]],
    )
    report = compare(SQUARE, run_samples(models, sample_inputs(SQUARE, {}, 1), Silent()), "float32")
    with pytest.raises(VerificationError, match=r"y differs by 0.00100"):
        check_outputs(report)


def test_a_library_that_was_not_run_is_judged_by_its_weights() -> None:
    models = Models(None, lambda given: [given[0]], lambda given: [given[0] * 1.5])
    report = compare(SQUARE, run_samples(models, sample_inputs(SQUARE, {}, 1), Silent()), "float32")
    assert "compiler" not in report["outputs"]["y"]
    check_outputs(report)
    assert broken_limit(report, 0.4) is not None


def test_what_no_error_can_be_computed_of() -> None:
    one = np.ones((2, 2), np.float32)
    with pytest.raises(VerificationError, match=r"has the shape \[2\] in place of \[2, 2\]"):
        relative_error(one[0], one, "y")
    with pytest.raises(VerificationError, match="not finite"):
        relative_error(one * np.nan, one, "y")
    assert relative_error(one * np.inf, one * np.inf, "y") == 0.0
    assert relative_error(np.array([1, 2]), np.array([1, 3]), "y") == float("inf")


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text("abc._/", min_size=1, max_size=8),
        arrays.arrays(
            st.sampled_from([np.float32, np.float16, np.int32, np.uint8, np.bool_]),
            arrays.array_shapes(min_dims=0, max_dims=4, max_side=4),
        ),
        max_size=5,
    )
)
def test_files_are_read_by_the_package_that_defines_them(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("written") / "x.safetensors"
    types = {name: (array.shape, array.dtype.name) for name, array in tensors.items()}
    write_safetensors(path, types, iter(tensors.items()), {"a": "b"})
    read = load_file(path)
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)


def golden() -> GoldenTensors:
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    y = x.astype(np.float32)
    return GoldenTensors({"x": x}, {"y": y}, {"y": y * 1.01}, 0.05)


def test_golden_tensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    write_golden_tensors(path, golden())
    read = read_golden_tensors(path)
    np.testing.assert_array_equal(read.inputs["x"], golden().inputs["x"])
    np.testing.assert_array_equal(read.reference["y"], golden().reference["y"])
    assert read.tolerance == 0.05
    figures = check_golden_tensors(lambda given: [given[0].astype(np.float32)], read)
    assert figures["artifact"] == {"y": 0.0}
    assert figures["reference"]["y"] == pytest.approx(0.01, rel=0.02)
    with pytest.raises(VerificationError, match="differ from the golden ones"):
        check_golden_tensors(lambda given: [given[0] * 1.2], read)


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_damaged_golden_tensors(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "golden.safetensors"
    write_golden_tensors(path, golden())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VerificationError):
        read_golden_tensors(path)


def test_golden_outputs_of_text_are_not_tensors(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    one = np.ones(1, np.float32)
    types = {"input.x": ((1,), "float32"), "artifact.y": ((1,), "float32")}
    written = {"input.x": one, "artifact.y": one}
    write_safetensors(path, types, written.items(), {"schema": "other", "tolerance": "1"})
    with pytest.raises(VerificationError, match="its schema is 'other'"):
        read_golden_tensors(path)


def test_the_interface_comes_back(tmp_path: Path) -> None:
    TEXT.write(tmp_path)
    assert read_interface(tmp_path / INTERFACE) == TEXT
    assert (TEXT.batch, TEXT.length) == (4, 9)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": "edgec.model/v1"}'])
def test_a_damaged_interface(tmp_path: Path, text: str) -> None:
    (tmp_path / INTERFACE).write_text(text)
    with pytest.raises(VerificationError, match="can't be read"):
        read_interface(tmp_path / INTERFACE)


def test_an_interface_of_a_later_version(tmp_path: Path) -> None:
    data = {**TEXT.to_json(), "schema": "edgec.model/v2"}
    (tmp_path / INTERFACE).write_text(json.dumps(data))
    with pytest.raises(VerificationError, match=r"edgec\.model/v2"):
        read_interface(tmp_path / INTERFACE)


def test_metadata_of_functions_and_of_embeddings() -> None:
    tensors = [TensorSpec("a.weight", (2, 3), "float32", "a.weight")]
    plain = generic_metadata(
        model_type="x", quantization="q0f32", interface=SQUARE, tensors=tensors, workspace={"m": 8}
    )
    assert plain["kv_state_kind"] == NO_CACHE
    assert plain["max_batch_size"] == 5
    assert "embedding_metadata" not in plain
    text = generic_metadata(
        model_type="x", quantization="q0f32", interface=TEXT, tensors=tensors, workspace={}
    )
    assert text["model_task"] == "embedding"
    assert text["prefill_chunk_size"] == text["context_window_size"] == 9
    assert text["sliding_window_size"] == -1
    assert text["params"] == plain["params"]


def test_pooling() -> None:
    states = np.array([[[3.0, 0.0], [1.0, 4.0], [9.0, 9.0]]], np.float32)
    mask = np.array([[1, 1, 0]])
    np.testing.assert_allclose(pool(states, mask, Embedding("cls", normalize=False)), [[3, 0]])
    np.testing.assert_allclose(pool(states, mask, Embedding("mean", normalize=False)), [[2, 2]])
    (vector,) = pool(states, mask, Embedding("mean", normalize=True))
    np.testing.assert_allclose(vector, [0.5**0.5] * 2, rtol=1e-6)


def located(name: str) -> bytes:
    """How protocol buffers write the entry that names an external file."""
    text = name.encode()
    low = bytes([len(text)]) if len(text) < 128 else bytes([len(text) & 127 | 128, len(text) >> 7])
    return b"\x0a\x08location\x12" + low + text


@pytest.mark.parametrize("name", ["weights/net.data", "a" * 127, "b" * 128, "c" * 200, "é.bin"])
def test_the_files_of_an_onnx_model(tmp_path: Path, name: str) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(b".." + located(name) + b"\x0a" + located(name) + located("missing.bin"))
    (tmp_path / "weights").mkdir()
    (tmp_path / name).write_bytes(b"1")
    (tmp_path / "other.data").write_bytes(b"2")
    assert source_files(model) == [model, tmp_path / name]


def test_an_onnx_file_that_is_none(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    for content in (b"", b"\x0a\x08location\x12\x7f", b"\x0a\x08location\x12\x03\x00\x01\x02"):
        model.write_bytes(content)
        assert source_files(model) == [model]
