"""bitsandbytes checkpoints: values by row ranges, and a clear error for damage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.checkpoints.quantized import bitsandbytes, open_folder
from edgec.errors import CheckpointError
from quantized_forms import (
    INT8,
    NESTED_MAP,
    NF4,
    NF4_CONFIG,
    Tensors,
    expect_refusal,
    four_bits,
    int8,
    save,
)

if TYPE_CHECKING:
    from pathlib import Path

NAME = "model.layers.0.self_attn.q_proj.weight"
STATE = f"{NAME}.quant_state.bitsandbytes__nf4"


def value(tensors: Tensors, index: int, block: int, nested: int | None) -> np.float32:
    """One weight of the flat tensor, in float32 step by step."""
    octet = int(tensors[NAME].reshape(-1)[index // 2])
    code = octet & 15 if index % 2 else octet >> 4
    factor = tensors[f"{NAME}.absmax"][index // block]
    if nested is not None:
        inner = NESTED_MAP[factor] * tensors[f"{NAME}.nested_absmax"][index // block // nested]
        factor = inner + np.float32(state_of(tensors)["nested_offset"])
    result: np.float32 = NF4[code] * factor
    return result


def state_of(tensors: Tensors) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(tensors[STATE].tobytes())
    return state


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 70)),
    block=st.sampled_from([32, 64, 128]),
    nested=st.sampled_from([None, 32, 256]),
    piece=st.sampled_from([1, 200, 1 << 14]),
    data=st.data(),
)
def test_any_rows_equal_the_definition(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    block: int,
    nested: int | None,
    piece: int,
    data: st.DataObject,
) -> None:
    weight = np.random.default_rng(shape[0]).normal(0, 0.1, shape).astype(np.float32)
    tensors = four_bits(NAME, weight, block=block, nested=nested)
    checkpoint = open_folder(save(tmp_path_factory.mktemp("model"), NF4_CONFIG, tensors))
    assert checkpoint.names() == [NAME]
    assert checkpoint.info(NAME).shape == shape
    assert checkpoint.info(NAME).dtype == "BF16"
    start = data.draw(st.integers(0, shape[0]))
    stop = data.draw(st.integers(start, shape[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitsandbytes, "_PIECE", piece)
        rows = checkpoint.rows(NAME, start, stop)
    expected = [
        value(tensors, index, block, nested) for index in range(start * shape[1], stop * shape[1])
    ]
    np.testing.assert_array_equal(rows.reshape(-1), np.array(expected, np.float32))


def test_nf4_is_near_what_it_was_made_of(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 0.1, (64, 256)).astype(np.float32)
    checkpoint = open_folder(save(tmp_path, NF4_CONFIG, four_bits(NAME, weight, nested=256)))
    error = checkpoint.rows(NAME, 0, 64) - weight
    assert 0.05 < error.std() / weight.std() < 0.12


def test_int8(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(0, 0.1, (40, 33)).astype(np.float32)
    module = NAME.removesuffix(".weight")
    tensors = int8(module, weight) | {"norm.weight": np.ones(3, np.float16)}
    checkpoint = open_folder(save(tmp_path, INT8, tensors))
    assert checkpoint.names() == [NAME, "norm.weight"]
    codes, scales = tensors[NAME], tensors[f"{module}.SCB"]
    expected = codes.astype(np.float32) * scales[:, None] * np.float32(1 / 127)
    np.testing.assert_array_equal(checkpoint.rows(NAME, 5, 31), expected[5:31])
    assert np.abs(expected - weight).max() < 0.51 * scales.max() / 127


Change = Any
WEIGHT = np.random.default_rng(1).normal(0, 0.1, (16, 64)).astype(np.float32)

PARTS: dict[str, tuple[dict[str, Change], str]] = {
    "no factors": ({".absmax": None}, r"absmax is missing"),
    "no table": ({".quant_map": None}, r"quant_map is missing"),
    "no table of factors": ({".nested_quant_map": None}, r"nested_quant_map is missing"),
    "factors of factors missing": ({".nested_absmax": None}, r"nested_absmax is missing"),
    "cut off": ({"": lambda t: t[:-4]}, r"has 508 bytes; 1,024 weights of 4 bits take 512"),
    "too long": ({"": lambda t: np.concatenate([t, t])}, r"has 1,024 bytes"),
    "codes of another type": ({"": lambda t: t.astype(np.int64)}, r"dtype I64"),
    "short table": ({".quant_map": lambda t: t[:15]}, r"\[15\] in place of \[16\]"),
    "long table": ({".nested_quant_map": lambda t: t[:7]}, r"\[7\] in place of \[256\]"),
    "fewer factors": ({".absmax": lambda t: t[:-1]}, r"\[15\] in place of \[16\]"),
    "factors of floats": ({".absmax": lambda t: t.astype(np.float32)}, r"F32 in place of U8"),
    "NaN in the table": ({".quant_map": lambda t: t * np.nan}, r"quant_map holds a NaN"),
    "NaN among factors": ({".nested_absmax": lambda t: t * np.nan}, r"nested_absmax holds a NaN"),
}
STATES: dict[str, tuple[Any, str]] = {
    "no block": ({"blocksize": None}, r"blocksize None"),
    "odd block": ({"blocksize": 63}, r"blocksize 63 in place of 32, 64"),
    "block of truth": ({"blocksize": True}, r"blocksize True"),
    "absurd block": ({"blocksize": 1 << 60}, r"blocksize 1152921504606846976"),
    "other type": ({"quant_type": "int2"}, r"quant_type 'int2'"),
    "other floats": ({"dtype": "float8"}, r"dtype 'float8'"),
    "no shape": ({"shape": []}, r"shape \[\]"),
    "negative shape": ({"shape": [-16, -64]}, r"shape \[-16, -64\]"),
    "absurd shape": ({"shape": [1 << 40, 1 << 40]}, r"has shape"),
    "other shape": ({"shape": [16, 65]}, r"1,040 weights"),
    "shape of text": ({"shape": "16x64"}, r"shape '16x64'"),
    "no offset": ({"nested_offset": None}, r"nested_offset None, not a finite number"),
    "absurd offset": ({"nested_offset": 1e300}, r"nested_offset 1e\+300"),
    "no inner block": ({"nested_blocksize": 0}, r"nested_blocksize 0"),
    "a list": ([1, 2], r"is \[1, 2\] where an object belongs"),
    "no JSON": (b"\x80{", r"is not JSON"),
    "empty": (b"", r"is not JSON"),
    "deep": (b"[" * 60000, r"is not JSON"),
    "huge": (b" " * 70000, r"has 70,000 bytes"),
}


@pytest.mark.parametrize("case", PARTS)
def test_damaged_parts(tmp_path: Path, case: str) -> None:
    changes, message = PARTS[case]
    tensors = four_bits(NAME, WEIGHT, nested=256)
    for part, change in changes.items():
        if change is None:
            del tensors[NAME + part]
        else:
            tensors[NAME + part] = change(tensors[NAME + part])
    assert expect_refusal(save(tmp_path, NF4_CONFIG, tensors), NAME, message) < 1 << 20


@pytest.mark.parametrize("case", STATES)
def test_damaged_states(tmp_path: Path, case: str) -> None:
    change, message = STATES[case]
    tensors = four_bits(NAME, WEIGHT, nested=256)
    if isinstance(change, dict):
        change = {**state_of(tensors), **change}
    raw = change if isinstance(change, bytes) else json.dumps(change).encode()
    tensors[STATE] = np.frombuffer(raw, np.uint8)
    assert expect_refusal(save(tmp_path, NF4_CONFIG, tensors), NAME, message) < 1 << 20


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("weight", lambda t: t.astype(np.int32), r"I32 in place of I8"),
        ("weight", lambda t: t.reshape(-1), r"two axes"),
        ("SCB", lambda t: t[:-1], r"\[15\] in place of \[16\]"),
        ("SCB", lambda t: t * np.inf, r"SCB holds a NaN or an infinity"),
        ("SCB", lambda t: t.astype(np.int32), r"I32 in place of F32"),
        ("SCB", lambda t: t[:, None], r"\[16, 1\] in place of \[16\]"),
        ("SCB", lambda t: np.where(t > t.mean(), np.nan, t), r"SCB holds a NaN or an infinity"),
        ("weight", lambda t: t[None], r"two axes"),
        ("weight", lambda t: t[:-1], r"\[16\] in place of \[15\]"),
        ("weight_format", lambda t: t + np.uint8(2), r"is 2; only rows in order"),
        ("weight_format", lambda t: np.zeros(3, np.uint8), r"in place of \[\]"),
    ],
)
def test_damaged_int8(tmp_path: Path, part: str, change: Change, message: str) -> None:
    module = NAME.removesuffix(".weight")
    tensors = int8(module, WEIGHT)
    name = f"{module}.{part}"
    tensors[name] = change(tensors[name])
    expect_refusal(save(tmp_path, INT8, tensors), NAME, message)


@settings(max_examples=300, deadline=None)
@given(
    state=st.one_of(
        st.binary(max_size=80),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "quant_type",
                            "blocksize",
                            "dtype",
                            "shape",
                            "nested_blocksize",
                            "nested_offset",
                        ]
                    ),
                    inner,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_state_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, state: bytes
) -> None:
    tensors = four_bits(NAME, WEIGHT, nested=256)
    tensors[STATE] = np.frombuffer(state, np.uint8)
    checkpoint = open_folder(save(tmp_path_factory.mktemp("model"), NF4_CONFIG, tensors))
    with pytest.raises(CheckpointError, match=r"nf4|weights"):
        checkpoint.info(NAME)
