"""Golden outputs: kept small, read back exactly, and a check that fails when it should."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from verification_fakes import (
    VOCABULARY,
    DecodesOffByOne,
    FakeCapacity,
    FakeEngine,
    FakeModel,
    ForgetsAtChunks,
    random_windows,
)

from edgec.errors import VerificationError
from edgec.verification.golden import Golden, _spread, check_golden, make_golden
from edgec.verification.golden_file import read_golden, write_golden

if TYPE_CHECKING:
    from pathlib import Path

IDS = random_windows(60)[0]


@pytest.fixture
def golden() -> Golden:
    return make_golden(FakeEngine(), IDS, "float32", FakeModel())


def equal(first: Golden, second: Golden) -> bool:
    pairs = zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True)
    return all(np.array_equal(a, b) if a is not None else b is None for a, b in pairs)


def test_a_golden_run(golden: Golden) -> None:
    assert golden.tokens.tolist() == IDS
    assert golden.positions.tolist() == list(range(60))
    np.testing.assert_array_equal(golden.artifact, FakeModel().logits(IDS))
    assert golden.tolerance == 1e-3
    engine = FakeEngine()
    ways = dict.fromkeys(["all_logits", "prefill", "chunked_prefill", "decode"], 0.0)
    assert check_golden(engine, golden) == {
        "positions": 60,
        "tolerance": 1e-3,
        "artifact": ways,
        "reference": ways,
    }
    assert not engine.states


@pytest.mark.parametrize("reference", [None, FakeModel()])
def test_a_file_and_back(tmp_path: Path, reference: FakeModel | None) -> None:
    golden = make_golden(FakeEngine(), IDS, "float16", reference)
    path = tmp_path / "golden.safetensors"
    write_golden(path, golden)
    assert equal(read_golden(path), golden)
    again = tmp_path / "again"
    write_golden(again, read_golden(path))
    assert again.read_bytes() == path.read_bytes()
    # Others can read it.
    tensors = safetensors.numpy.load_file(path)
    assert ("reference" in tensors) == (reference is not None)
    np.testing.assert_array_equal(tensors["artifact"], golden.artifact)


def test_rounding_passes_and_more_does_not(golden: Golden) -> None:
    result = check_golden(FakeEngine(FakeModel(noise=5e-4)), golden)
    assert 0 < result["artifact"]["decode"] < 1e-3
    noisy = FakeEngine(FakeModel(noise=2e-3))
    with pytest.raises(VerificationError, match=r"golden outputs by 0\.00\d+, .* 0\.001 that"):
        check_golden(noisy, golden)
    assert not noisy.states


@pytest.mark.parametrize(
    ("engine", "way"), [(ForgetsAtChunks(), "chunked_prefill"), (DecodesOffByOne(), "decode")]
)
def test_the_way_that_is_broken_is_named(golden: Golden, engine: FakeEngine, way: str) -> None:
    with pytest.raises(VerificationError, match=rf"\({way}\) differ from its own golden outputs"):
        check_golden(engine, golden)


def test_the_reference_counts_too(golden: Golden) -> None:
    assert golden.reference is not None
    other = dataclasses.replace(golden, reference=golden.reference + np.float32(0.01))
    with pytest.raises(VerificationError, match=r"differ from the float32 reference by 0\.01"):
        check_golden(FakeEngine(), other)
    with pytest.raises(VerificationError, match="differ from the float32 reference"):
        make_golden(FakeEngine(FakeModel(noise=0.01)), IDS, "float32", FakeModel())


def test_another_model_s_file(golden: Golden) -> None:
    narrow = dataclasses.replace(golden, artifact=golden.artifact[:, :-1], reference=None)
    with pytest.raises(VerificationError, match=r"shape \(97,\) in place of \(96,\)"):
        check_golden(FakeEngine(), narrow)
    with pytest.raises(VerificationError, match="has 60 tokens, more than the context of 32"):
        check_golden(FakeEngine(capacity=FakeCapacity(tokens=32)), golden)


def test_tokens_beyond_the_context_are_left_out() -> None:
    golden = make_golden(FakeEngine(capacity=FakeCapacity(tokens=32)), IDS, "float32")
    assert golden.tokens.tolist() == IDS[:32]
    assert golden.reference is None


def test_a_large_vocabulary_stays_below_four_mebibytes(tmp_path: Path) -> None:
    class Wide(FakeModel):
        def logits(self, ids: list[int], calls: Any = ()) -> np.ndarray:
            return np.tile(super().logits(ids, calls), 1000)

    class WideEngine(FakeEngine):
        def all_logits(self, sequence: int, tokens: Any) -> np.ndarray:
            return np.tile(super().all_logits(sequence, tokens), 1000)

    golden = make_golden(WideEngine(), IDS, "float32", Wide())
    write_golden(tmp_path / "g", golden)
    assert 3 << 20 < (tmp_path / "g").stat().st_size < 4 << 20
    assert golden.artifact.shape == (5, 1000 * VOCABULARY)
    assert golden.positions.tolist() == [11, 23, 35, 47, 59]


@given(count=st.integers(2, 4096), wanted=st.integers(1, 300))
def test_positions_are_spread(count: int, wanted: int) -> None:
    positions = _spread(count, wanted)
    assert len(positions) == min(count, wanted)
    assert positions[-1] == count - 1
    assert positions[0] >= 0
    gaps = np.diff(positions)
    assert gaps.size == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def changed(golden: Golden, **fields: Any) -> Golden:
    return dataclasses.replace(golden, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": np.array([3, 3] * 30, np.int32)}, "positions are not ascending"),
        ({"positions": np.array([], np.int32)}, "positions are not ascending"),
        ({"positions": np.arange(1, 61, dtype=np.int32)}, "not those of its tokens"),
        ({"positions": np.arange(-1, 59, dtype=np.int32)}, "not those of its tokens"),
        ({"tokens": np.full(60, 97, np.int32)}, "not in the vocabulary"),
        ({"tokens": np.full(60, -1, np.int32)}, "not in the vocabulary"),
        ({"artifact": np.zeros((59, 97), np.float32)}, r"have the shape \(59, 97\)"),
        ({"artifact": np.full((60, 97), np.nan, np.float32)}, "not finite numbers"),
        ({"artifact": np.zeros(60, np.float32)}, "no tensor artifact of type F32 with 2 axes"),
        ({"reference": np.zeros((60, 96), np.float32)}, r"have the shape \(60, 96\)"),
        ({"tolerance": float("nan")}, "tolerance 'nan' is not a positive number"),
        ({"tolerance": 0.0}, "tolerance '0.0' is not a positive number"),
    ],
)
def test_files_that_contradict_themselves(
    tmp_path: Path, golden: Golden, fields: dict[str, Any], message: str
) -> None:
    path = tmp_path / "golden.safetensors"
    write_golden(path, changed(golden, **fields))
    with pytest.raises(VerificationError, match=message) as caught:
        read_golden(path)
    assert caught.value.where == str(path)


def test_files_that_are_none(tmp_path: Path, golden: Golden) -> None:
    path = tmp_path / "golden.safetensors"
    with pytest.raises(VerificationError, match="can't be read: No such file"):
        read_golden(path)
    write_golden(path, golden)
    raw = path.read_bytes()
    for damaged in (b"", raw[:7], raw[:100], raw[:-1], raw + b"x", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(VerificationError, match="restore the file or build the artifact again"):
            read_golden(path)
    path.write_bytes(safetensors.numpy.save({"tokens": golden.tokens}))
    with pytest.raises(VerificationError, match="its schema is None"):
        read_golden(path)
    path.write_bytes(raw.replace(b"edgec.golden/v1", b"edgec.golden/v9"))
    with pytest.raises(VerificationError, match=r"its schema is 'edgec\.golden/v9'"):
        read_golden(path)
