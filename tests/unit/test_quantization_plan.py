from __future__ import annotations

from dataclasses import dataclass

import pytest
from quantization_fakes import parameter

from edgec.checkpoints.codes import CodesForm
from edgec.errors import UsageError
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import SCHEMES, TensorScheme, find_scheme


@dataclass(frozen=True)
class Rule:
    match: str
    bits: int
    group_size: int | None = None


PARAMETERS = [
    parameter("embed.weight", (50, 128), "embedding"),
    parameter("layers.0.qkv.weight", (40, 128)),
    parameter("layers.0.qkv.bias", (40,), "bias"),
    parameter("layers.0.norm.weight", (128,), "norm"),
    parameter("layers.1.qkv.weight", (40, 96)),
    parameter("head.weight", (50, 128), "head"),
]


def plan(*rules: Rule, scheme: str = "q4f16_1", group: int = 32) -> dict[str, TensorScheme | None]:
    return tensor_schemes(PARAMETERS, SCHEMES[scheme], group, rules)


def test_matrices_are_quantized_and_vectors_are_not() -> None:
    chosen = plan()
    assert list(chosen) == [p.name for p in PARAMETERS]
    int4 = TensorScheme(4, 32, "float16")
    assert chosen == {p.name: None if p.role in ("norm", "bias") else int4 for p in PARAMETERS}
    assert set(plan(scheme="q0f16").values()) == {None}
    assert plan(scheme="q8f32_1")["head.weight"] == TensorScheme(8, 32, "float32")


def test_the_first_override_that_matches_wins() -> None:
    chosen = plan(
        Rule("layers.0.*", 8, 64), Rule("layers.*", 16), Rule("embed.*", 8), scheme="q4f32_1"
    )
    assert chosen["layers.0.qkv.weight"] == TensorScheme(8, 64, "float32")
    assert chosen["layers.1.qkv.weight"] is None
    assert chosen["embed.weight"] == TensorScheme(8, 32, "float32")
    assert chosen["head.weight"] == TensorScheme(4, 32, "float32")
    assert chosen["layers.0.norm.weight"] is None


def test_zero_points_come_with_codes_that_fit() -> None:
    fused = parameter(
        "qkv.weight", (40, 128), "linear", {"q.weight": (30, 128), "k.weight": (10, 128)}
    )
    parameters = [fused, parameter("o.weight", (40, 128)), parameter("norm.weight", (128,), "norm")]

    def zeros(**codes: CodesForm) -> list[bool]:
        forms = {f"{name}.weight": form for name, form in codes.items()}
        schemes = tensor_schemes(parameters, SCHEMES["q4f16_1"], 32, codes=forms)
        return [scheme.zeros for scheme in schemes.values() if scheme is not None]

    form = CodesForm(4, 128, "float16", zeros=True)
    assert zeros() == [False, False]
    assert zeros(k=form) == [True, False]
    assert zeros(o=form, norm=form) == [False, True]
    assert zeros(q=CodesForm(4, 128, "float16"), o=CodesForm(8, 128, "float16", zeros=True)) == [
        False,
        False,
    ]


def test_an_override_can_quantize_under_a_plain_scheme() -> None:
    assert plan(Rule("head.*", 4), scheme="q0f16")["head.weight"] == TensorScheme(4, 32, "float16")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([Rule("layer.*", 8)], r"overrides\.0\.match: 'layer\.\*' matches no parameter; .*'embed"),
        ([Rule("*.bias", 8)], "only norms and biases"),
        ([Rule("*", 8), Rule("head.*", 4)], r"overrides\.1\.match: .*taken by an earlier"),
    ],
)
def test_an_override_without_effect_is_refused(rules: list[Rule], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(*rules)


@pytest.mark.parametrize("group", [64, 20])
def test_rows_that_do_not_divide_are_refused_by_name(group: int) -> None:
    with pytest.raises(UsageError) as caught:
        plan(Rule("embed.*", 16), Rule("layers.0.*", 16), Rule("head.*", 16), group=group)
    text = str(caught.value)
    assert "layers.1.qkv.weight have K = 96 weights" in text
    assert f"groups of {group}" in text
    assert "[8, 16, 24, 32, 48, 96]" in text
    assert "bits: 16" in text


def test_schemes_say_what_their_names_say() -> None:
    for name, scheme in SCHEMES.items():
        assert name == scheme.name
        assert name.startswith(f"q{scheme.bits}f{scheme.dtype[-2:]}")
        assert name.endswith("_1") == bool(scheme.bits)
        assert find_scheme(name) is scheme
    with pytest.raises(UsageError, match=r"quantization\.scheme: .*'q4f16'.*q4f16_1"):
        find_scheme("q4f16")
