from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.errors import EdgecError, UnsupportedModelError, UsageError
from edgec.importers.declared import declared_signature, example_sizes
from edgec.importers.find import open_source
from edgec.importers.imported import Signature, TensorType
from edgec.importers.unsupported import refuse_operators

OWN = Signature(
    (TensorType("ids", ("batch", "length"), "int32"), TensorType("scale", (3,), "float32")),
    {"batch": 8, "length": 64},
)


def test_what_is_declared_replaces_shapes_and_bounds() -> None:
    found = declared_signature(OWN, [TensorType("ids", (1, "n"), "")], {"n": 16})
    assert found.inputs == (TensorType("ids", (1, "n"), "int32"), OWN.inputs[1])
    assert found.bounds == {"n": 16}


def test_a_dimension_of_at_most_one_is_fixed() -> None:
    found = declared_signature(OWN, [], {"batch": 1})
    assert found.inputs[0].shape == (1, "length")
    assert found.bounds == {"length": 64}


@pytest.mark.parametrize(
    ("declared", "bounds", "message"),
    [
        (
            [TensorType("mask", (1,), "")],
            {},
            "inputs.mask: the model has no input of this name; its inputs are ids, scale",
        ),
        (
            [TensorType("ids", (1,), "")],
            {},
            "inputs.ids: 1 sizes are declared, the model has 2",
        ),
        (
            [TensorType("ids", (1, "n"), "")],
            {},
            "inputs.ids: the largest 'n' is not given; give each size as a number, or as a name with its maximum",
        ),
        (
            [TensorType("ids", (1, 2), "float32")],
            {},
            "inputs.ids: type float32 is declared, the model takes int32; leave the type out",
        ),
        ([], {"batch": 0}, "inputs.ids.batch: the maximum is below 1"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    declared: list[TensorType], bounds: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        declared_signature(OWN, declared, bounds)
    assert str(caught.value) == message


@given(st.lists(st.integers(min_value=2, max_value=600), max_size=4))
def test_sizes_to_trace_with_are_within_bounds_and_vary(limits: list[int]) -> None:
    bounds = {f"d{index}": limit for index, limit in enumerate(limits)}
    sizes = example_sizes(bounds)
    assert list(sizes) == list(bounds)
    assert all(2 <= sizes[name] <= bound for name, bound in bounds.items())
    if all(limit > 20 for limit in limits):
        assert len(set(sizes.values())) == len(sizes)
        assert all(sizes[name] < bound for name, bound in bounds.items())


def test_all_unsupported_operators_are_named_with_their_counts() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        refuse_operators(["b", "a", "b", "c", "c", "c"], where="m.onnx", remedy="try")
    assert str(caught.value) == (
        "m.onnx: 3 operators of the model can't be translated: a (once), b (twice), c (3 times); try"
    )
    refuse_operators([], where="m.onnx", remedy="try")


def test_a_source_that_no_importer_takes() -> None:
    with pytest.raises(EdgecError, match=r"^model\.bin: no importer takes this source; give a "):
        open_source("model.bin")
