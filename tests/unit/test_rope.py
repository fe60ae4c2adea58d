"""What is read of a config's rotary embedding, and what a library's context makes of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.errors import CheckpointError, EdgecError
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.rope import Rope
from edgec.models.rope_at_length import config_at_length
from edgec.models.rope_config import longest_text, rope_from_config

SHORT, LONG = [1.0, 1.5, 2.0], [4.0, 5.0, 6.0]
SCALING = {"type": "longrope", "short_factor": SHORT, "long_factor": LONG}
CONFIG: dict[str, Any] = {
    "max_position_embeddings": 1024,
    "original_max_position_embeddings": 256,
    "partial_rotary_factor": 0.75,
    "rope_theta": 100.0,
    "rope_scaling": SCALING,
}


def test_both_spellings_say_the_same() -> None:
    newer = {
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 256,
            "short_factor": SHORT,
            "long_factor": LONG,
        },
    }
    old = {**CONFIG, "rope_scaling": {**SCALING, "type": "su"}}
    expected = rope_from_config(CONFIG, 8)
    assert rope_from_config(newer, 8) == rope_from_config(old, 8) == expected
    assert expected.rotary_dim == 6
    assert expected.scaling["attention_factor"] == math.sqrt(1 + math.log(4) / math.log(256))
    assert Rope(**expected.to_json()) == expected


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"max_position_embeddings": 256}, 1.0),
        ({"rope_scaling": {**SCALING, "factor": 16.0}}, math.sqrt(1.5)),
        ({"rope_scaling": {**SCALING, "attention_factor": 1.25}}, 1.25),
    ],
)
def test_the_attention_factor_follows_from_the_stretch_unless_it_is_named(
    change: dict[str, Any], factor: float
) -> None:
    rope = rope_from_config({**CONFIG, **change}, 8)
    assert rope.scaling["attention_factor"] == pytest.approx(factor)


@pytest.mark.parametrize(("length", "factors"), [(256, SHORT), (257, LONG)])
def test_a_longer_context_than_the_original_has_the_long_factors(
    length: int, factors: list[float]
) -> None:
    rope = rope_from_config(CONFIG, 8)
    plain = [100.0 ** (-2 * pair / 6) for pair in range(3)]
    np.testing.assert_allclose(
        rope.at_length(length).inverse_frequencies(), np.divide(plain, factors)
    )
    # And so has the reference.
    assert rope_from_config(config_at_length(CONFIG, length), 8) == rope.at_length(length)


def test_the_dynamic_base_grows_with_the_context_beyond_the_original_length() -> None:
    config = {
        "max_position_embeddings": 64,
        "rope_theta": 100.0,
        "rope_scaling": {"type": "dynamic", "factor": 3.0},
    }
    rope = rope_from_config(config, 8)
    assert rope.at_length(5) == rope.at_length(64) == Rope(100.0, 8)
    # 3 * 128 / 64 - 2 is 4, and of 8 dimensions the power is 8 / 6.
    assert rope.at_length(128).theta == pytest.approx(100 * 4 ** (8 / 6))
    assert rope.at_length(128).kind == "default"


YARN = {"factor": 4.0, "original_max_position_embeddings": 256}
NEWER = {"rope_theta": 100.0, **YARN}


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_both_spellings_of_other_scalings_say_the_same(kind: str) -> None:
    config = {"max_position_embeddings": 256}
    newer = rope_from_config({**config, "rope_parameters": {"rope_type": kind, **NEWER}}, 8)
    old = {**config, "rope_theta": 100.0, "rope_scaling": {"type": kind, **YARN}}
    assert rope_from_config(old, 8) == newer
    assert (newer.kind, newer.theta, newer.scaling["factor"]) == (kind, 100.0, 4.0)
    assert Rope(**newer.to_json()) == newer


def test_yarn_without_numbers_has_those_of_its_paper() -> None:
    config = {"max_position_embeddings": 1024, "rope_theta": 1e4}
    named = {"beta_fast": 32, "beta_slow": 1, "attention_factor": 0.1 * math.log(4) + 1}
    plain, explicit = (
        rope_from_config({**config, "rope_scaling": {"type": "yarn", **YARN, **more}}, 64)
        for more in ({}, {**named, "truncate": True})
    )
    assert plain == explicit
    # Where no factor is named it is what the lengths say.
    lengths = {"type": "yarn", "original_max_position_embeddings": 256}
    assert rope_from_config({**config, "rope_scaling": lengths}, 64) == plain
    factors = plain.factors()
    assert (factors[0], factors[-1]) == (1.0, 4.0)
    assert factors == sorted(factors)


def test_a_length_beside_the_scaling_wins_as_in_transformers() -> None:
    scaling = {"type": "yarn", **YARN}
    config = {"max_position_embeddings": 1024, "rope_scaling": scaling}
    beside = rope_from_config({**config, "original_max_position_embeddings": 512}, 8)
    inside = {**scaling, "original_max_position_embeddings": 512}
    assert beside == rope_from_config({**config, "rope_scaling": inside}, 8)
    assert beside != rope_from_config(config, 8)


@pytest.mark.parametrize(
    ("scaling", "length"),
    [
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}, 1024),
        ({"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256}, 2048),
        ({"type": "yarn", "factor": 2.0}, 2048),
        ({"type": "dynamic", "factor": 2.0}, 2048),
        ({"type": "linear", "factor": 4.0}, 1024),
        ({"type": "su", "short_factor": SHORT, "long_factor": LONG}, 1024),
        (None, 1024),
    ],
)
def test_how_long_a_text_the_embedding_was_stretched_for(
    scaling: dict[str, Any] | None, length: int
) -> None:
    assert longest_text({"max_position_embeddings": 1024, "rope_scaling": scaling}) == length


@pytest.mark.parametrize(
    ("scaling", "field"),
    [
        ({"type": "linear"}, "factor"),
        ({"type": "linear", "factor": 0}, "factor"),
        ({"type": "dynamic", "factor": "2"}, "factor"),
        ({"type": "yarn", "factor": -1.0}, "factor"),
        ({"type": "yarn", "factor": math.inf}, "factor"),
        ({"type": "yarn", **YARN, "beta_fast": 0}, "beta_fast"),
        ({"type": "yarn", **YARN, "attention_factor": [1]}, "attention_factor"),
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0.5},
            "original_max_position_embeddings",
        ),
        ({"type": "yarn", **YARN, "mscale": 1.0, "mscale_all_dim": -1.0}, "mscale_all_dim"),
        ({"type": "yarn", **YARN, "rope_theta": 1.0}, "rope_theta"),
    ],
)
def test_impossible_numbers_are_refused_by_their_field(scaling: dict[str, Any], field: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        rope_from_config({"max_position_embeddings": 256, "rope_scaling": scaling}, 8)
    assert caught.value.where == f"config.json: {field}"


NUMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.floats(),
    st.integers(-5, 1 << 70),
    st.lists(st.floats(), max_size=5),
)
NAMES = (
    "factor",
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "low_freq_factor",
    "high_freq_factor",
    "short_factor",
    "long_factor",
    "truncate",
)


@given(
    st.sampled_from(["linear", "dynamic", "yarn", "llama3", "longrope", "su", "default", "other"]),
    st.dictionaries(st.sampled_from(NAMES), NUMBERS),
    NUMBERS,
    st.integers(1, 1 << 20),
)
def test_any_config_gives_frequencies_or_an_error_with_a_field(
    kind: str, fields: dict[str, Any], positions: Any, length: int
) -> None:
    config = {"max_position_embeddings": positions, "rope_scaling": {"type": kind, **fields}}
    try:
        longest_text(config)
        rope = rope_from_config(config, 8).at_length(length)
    except EdgecError as error:
        where = error.where or ""
    else:
        where = "config.json: "
        frequencies = rope.inverse_frequencies()
        assert len(frequencies) == rope.rotary_dim // 2
        assert all(math.isfinite(value) for value in (*frequencies, rope.amplitude))
    assert where.startswith("config.json: ")


def test_other_embeddings_do_not_depend_on_the_context() -> None:
    config = {"rope_theta": 5e5, "max_position_embeddings": 64}
    rope = rope_from_config(config, 8, 0.5)
    assert rope.at_length(10**6) == rope == Rope(5e5, 4)
    assert config_at_length(config, 10**6) == config


@pytest.mark.parametrize(
    ("rope", "slides"),
    [
        (Rope(1e4, 8), True),
        (Rope(1e4, 6), False),
        (rope_from_config({**CONFIG, "partial_rotary_factor": 0.75}, 8), False),
        (Rope(1e4, 8, {"rope_type": "longrope"}), False),
        (Rope(1e4, 8, {"rope_type": "yarn"}), False),
        (Rope(1e4, 8, {"rope_type": "linear"}), True),
    ],
)
def test_windows_slide_over_whole_heads_that_turn_without_factors(rope: Rope, slides: bool) -> None:
    assert KVCacheSpec(1, 1, 1, 8, rope, "float32").slides is slides
