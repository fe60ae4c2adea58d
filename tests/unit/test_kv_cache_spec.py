"""How many bytes a KV cache takes, by what it holds keys and values as."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgec.artifacts.library_metadata import library_metadata
from edgec.errors import UnsupportedModelError
from edgec.models.kv_cache import KVCacheSpec, stored_as
from edgec.models.rope import Rope

SPEC = KVCacheSpec(
    layers=3, heads=4, kv_heads=2, head_dim=64, rope=Rope(10000.0, 64), dtype="float32"
)


@pytest.mark.parametrize(
    ("dtype", "stored", "row"),
    [
        ("float32", "", 256),
        ("float32", "float16", 128),
        ("float32", "int8", 68),
        ("float16", "", 128),
        ("float16", "int8", 68),
    ],
)
def test_a_row_has_its_numbers_and_an_int8_one_its_step(dtype: str, stored: str, row: int) -> None:
    spec = replace(SPEC, dtype=dtype, stored=stored)
    assert spec.row_bytes == row
    assert spec.kept_dtype == (stored or dtype)
    # 17 tokens are two pages of 16: keys and values of three layers and two heads.
    assert spec.nbytes(17) == 32 * 2 * 3 * 2 * row


@pytest.mark.parametrize(
    ("asked", "dtype", "stored"),
    [
        ("auto", "float32", ""),
        ("float16", "float32", "float16"),
        ("float16", "float16", ""),
        ("int8", "float16", "int8"),
    ],
)
def test_what_a_recipe_asks_for(asked: str, dtype: str, stored: str) -> None:
    assert stored_as(asked, dtype) == stored


@pytest.mark.parametrize(("stored", "multiple"), [("", 1), ("float16", 2), ("int8", 4)])
def test_rows_are_whole_words(stored: str, multiple: int) -> None:
    for width in range(1, 9):
        spec = replace(SPEC, head_dim=width)
        if width % multiple == 0:
            assert spec.holding(stored).stored == stored
            assert not stored or spec.holding(stored).row_bytes % 4 == 0
            continue
        with pytest.raises(UnsupportedModelError, match=f"multiple of {multiple}.* have {width}"):
            spec.holding(stored)


def test_a_library_says_what_its_cache_holds() -> None:
    found = library_metadata(
        model_type="llama",
        quantization="q4f32_1",
        context_length=64,
        window=None,
        prefill_chunk=64,
        max_batch_size=1,
        cache=SPEC.holding("int8"),
        tensors=[],
        workspace={},
    )
    assert found["kv_cache"]["dtype"] == "int8"
    assert found["kv_cache"]["head_dim"] == 64


def test_json_carries_it_and_may_lack_it() -> None:
    spec = replace(SPEC, stored="int8")
    data = json.loads(json.dumps(spec.to_json()))
    assert KVCacheSpec.from_json(data) == spec
    del data["stored"]
    assert KVCacheSpec.from_json(data) == SPEC
