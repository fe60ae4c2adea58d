"""Tables in parts: how they are cut, and that nothing of them is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from quantization_fakes import Counter, parameter, small_model

from edgec.layouts import mlc
from edgec.layouts.mlc import tensors
from edgec.layouts.pack import pack_checkpoint
from edgec.layouts.parts import LIMIT, MOST_PARTS, split_tables, table_parts
from edgec.layouts.specs import TensorSpec, nbytes
from edgec.layouts.tensor_cache import TensorCache
from edgec.layouts.unpack import unpacked_rows
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.run import quantize_checkpoint
from edgec.quantization.schemes import SCHEMES

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def table(rows: int, columns: int, scheme: str) -> dict[str, tuple[int, ...]]:
    """How a head is cut where buffers have 128 MiB."""
    head = [parameter("lm_head.weight", (rows, columns), "head")]
    chosen = SCHEMES[scheme]
    specs = tensors(head, tensor_schemes(head, chosen, 32), chosen.dtype)
    return table_parts(specs, head, {LIMIT: 128 * MIB})


@pytest.mark.parametrize(
    ("rows", "columns", "scheme", "parts"),
    [
        # 125.25 MiB fit.
        (128256, 2048, "q4f16_1", ()),
        (200064, 3072, "q4f16_1", (66688, 66688, 66688)),
        (151936, 2048, "q4f16_1", (75968, 75968)),
        (128256, 2048, "q0f16", (32064,) * 4),
        # Five would be needed.
        (151936, 2048, "q0f16", ()),
    ],
)
def test_big_vocabularies_in_buffers_of_128_mib(
    rows: int, columns: int, scheme: str, parts: tuple[int, ...]
) -> None:
    assert table(rows, columns, scheme).get("lm_head.weight", ()) == parts


def test_without_a_limit_nothing_is_cut() -> None:
    head = [parameter("lm_head.weight", (1 << 20, 1 << 20), "head")]
    specs = [TensorSpec("lm_head.weight", head[0].shape, "float32", "lm_head.weight")]
    assert table_parts(specs, head, {"max_threads": 1}) == {}


def test_only_tables_are_cut() -> None:
    others = [parameter(f"{role}.weight", (64, 64), role) for role in ("linear", "embedding")]
    specs = [TensorSpec(p.name, p.shape, "float32", p.name) for p in others]
    assert table_parts(specs, others, {LIMIT: 9000}) == {"embedding.weight": (32, 32)}


@pytest.mark.parametrize("rows", [5, 63, 64, 65, 127, 1000, 4096, 4099])
@pytest.mark.parametrize("fitting", [1, 2, 30, 64, 100, 640, 1024, 4098])
def test_parts_fit_and_are_the_whole_table(rows: int, fitting: int) -> None:
    head = [parameter("lm_head.weight", (rows, 8), "head")]
    (spec,) = [TensorSpec("lm_head.weight", (rows, 8), "float32", "lm_head.weight")]
    parts = table_parts([spec], head, {LIMIT: 32 * fitting + 31})
    stored = split_tables([spec], parts)
    least = -(-rows // fitting)
    assert len(stored) == (least if least <= MOST_PARTS else 1)
    if len(stored) > 1:
        assert max(map(nbytes, stored)) <= 32 * fitting
        ends = [part.first_row + part.shape[0] for part in stored]
        assert [part.first_row for part in stored] == [0, *ends[:-1]]
        assert ends[-1] == rows
        assert [part.name for part in stored] == [f"lm_head.{i}.weight" for i in range(len(stored))]


@pytest.mark.parametrize("name", ["q4f16_1", "q8f32_1", "q0f32"])
def test_a_folder_with_parts_holds_the_same_numbers(tmp_path: Path, name: str) -> None:
    checkpoint, parameters = small_model()
    scheme = SCHEMES[name]
    schemes = tensor_schemes(parameters, scheme, 32)
    (tmp_path / "q").mkdir()
    quantize_checkpoint(
        checkpoint, parameters, schemes, scheme.dtype, "rtn", tmp_path / "q", Counter(), threads=1
    )
    (embedding,) = [p for p in parameters if p.role == "embedding"]
    rows = embedding.shape[0]
    whole = tensors([embedding], schemes, scheme.dtype)
    most = max(map(nbytes, whole)) * 20 // rows
    caches = []
    for place, limits in (("whole", {}), ("parts", {LIMIT: most})):
        (tmp_path / place).mkdir()
        with QuantizedCheckpoint(tmp_path / "q") as quantized:
            pack_checkpoint(
                quantized,
                parameters,
                tmp_path / place,
                Counter(),
                layout=mlc,
                threads=2,
                limits=limits,
            )
        caches.append(TensorCache(tmp_path / place))
        caches[-1].verify()
    attribute = "weight" if schemes[embedding.name] is None else "q_weight"
    assert [n for n in caches[1].names() if n.endswith(f".{attribute}") and "embed" in n] == [
        f"embed.{i}.{attribute}" for i in range(3)
    ]
    for p in parameters:
        for start, stop in ((0, p.shape[0]), (1, p.shape[0] - 2), (16, 18)):
            found = [unpacked_rows(mlc, cache, p, schemes[p.name], start, stop) for cache in caches]
            np.testing.assert_array_equal(*found)
