"""How many bytes a KV cache takes, by what it holds keys and values as."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgec.models.kv_cache import KVCacheSpec
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


def test_json_carries_it_and_may_lack_it() -> None:
    spec = replace(SPEC, stored="int8")
    data = json.loads(json.dumps(spec.to_json()))
    assert KVCacheSpec.from_json(data) == spec
    del data["stored"]
    assert KVCacheSpec.from_json(data) == SPEC
