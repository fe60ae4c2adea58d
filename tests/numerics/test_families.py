"""The dense families against transformers, each with all its special features switched on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.checkpoints import open_checkpoint
from edgec.models.rope_at_length import config_at_length
from edgec.verification.reference import from_checkpoint
from numerics.family_case import (
    FLOAT32,
    Case,
    check_chunks_then_decoding,
    check_every_position,
    check_forks,
    check_ragged_batches,
    tokens_of,
)
from numerics.family_cases import FamilyCase, model_type
from numerics.tiny_models import CONTEXT, SIZES, build, save_random_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numerics.tiny_models import Built

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")

# Within the small vocabulary.
SPECIAL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# Of heads 32 wide that are rotated by three quarters: 12 pairs.
SHORT = [1.0 + 0.05 * pair for pair in range(12)]
LONG = [1.5 + 0.4 * pair for pair in range(12)]


def longrope(original: int) -> dict[str, Any]:
    return {
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": original,
        "rope_scaling": {"type": "longrope", "short_factor": SHORT, "long_factor": LONG},
    }


def scaled(kind: str) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 1000.0, "factor": 4.0}


YARN = {**scaled("yarn"), "original_max_position_embeddings": 32, "beta_fast": 8}
GEMMA2 = {
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "head_dim": 64,
    "attention_bias": True,
    "sliding_window": 20,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
    "query_pre_attn_scalar": 48,
}
GEMMA3 = {
    "num_key_value_heads": 1,
    "num_hidden_layers": 3,
    "head_dim": 64,
    "sliding_window": 20,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "final_logit_softcapping": 3.0,
    # Normed queries and keys with random weights: without that one key would get all attention.
    "query_pre_attn_scalar": 1024,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
    },
}


def minicpm_reference(folder: Path) -> Any:
    """A Llama whose hidden states are scaled as MiniCPM's are, its folder turned into a MiniCPM."""
    from transformers import LlamaConfig  # noqa: PLC0415 - only these tests need it

    model = save_random_model(
        LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True), folder, seed=7
    )
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "minicpm", "architectures": ["MiniCPMForCausalLM"], **MINICPM}
    path.write_text(json.dumps(config))

    def scale_output(module: Any, factor: float) -> None:
        module.register_forward_hook(lambda _module, _inputs, output: output * factor)

    scale_output(model.model.embed_tokens, 12)
    for layer in model.model.layers:
        for branch in (layer.self_attn.o_proj, layer.mlp.down_proj):
            scale_output(branch, 1.4 / 2**0.5)
    scale_output(model.model.norm, 32 / 128)
    return model


MINICPM = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32}


def as_transformers_calls(weights: dict[str, Any]) -> dict[str, Any]:
    """GPT-NeoX's head has another name in checkpoints."""
    return {name.replace("embed_out", "lm_head"): values for name, values in weights.items()}


def random_model(name: str, folder: Path) -> Any:
    """A random model of transformers, saved in a folder."""
    import transformers  # noqa: PLC0415 - only these tests need it

    if name == "minicpm":
        return minicpm_reference(folder)
    model = MODELS[name]
    config = getattr(transformers, model.config)(**SIZES | SPECIAL_IDS | model.settings)
    return save_random_model(config, folder, seed=7)


@dataclass(frozen=True)
class Model:
    """A family's class of transformers' configs and what it is given; how it is stored."""

    config: str
    settings: dict[str, Any]
    quantization: dict[str, Any] = field(default_factory=lambda: {"scheme": "q0f32"})


MODELS = {
    "qwen2, tied, q4f32_1": Model(
        "Qwen2Config",
        {"num_key_value_heads": 2, "tie_word_embeddings": True},
        {"scheme": "q4f32_1"},
    ),
    "qwen3, wide heads, tied, yarn": Model(
        "Qwen3Config",
        {
            "num_key_value_heads": 2,
            "head_dim": 64,
            "tie_word_embeddings": True,
            "rope_parameters": YARN,
        },
    ),
    "mistral, window as long as the context, linear rope": Model(
        "MistralConfig",
        {
            "num_key_value_heads": 2,
            "sliding_window": CONTEXT,
            "head_dim": 48,
            "rope_parameters": scaled("linear"),
        },
    ),
    "phi3, long factors, tied, q4f32_1": Model(
        "Phi3Config",
        {"num_key_value_heads": 2, "tie_word_embeddings": True, **longrope(64)},
        {"scheme": "q4f32_1"},
    ),
    # Heads 80 wide, of which 32 are rotated, as in Phi-2.
    "phi, norms of heads": Model(
        "PhiConfig",
        {
            "hidden_size": 160,
            "num_attention_heads": 2,
            "partial_rotary_factor": 0.4,
            "qk_layernorm": True,
        },
    ),
    "gpt_neox, parallel": Model("GPTNeoXConfig", {"use_parallel_residual": True}),
    "gpt_neox, in sequence, q4f32_1": Model(
        "GPTNeoXConfig",
        {"use_parallel_residual": False, "rotary_pct": 1.0, "hidden_act": "gelu_new"},
        {"scheme": "q4f32_1"},
    ),
    "gemma, wide heads, q4f32_1": Model(
        "GemmaConfig",
        {"num_key_value_heads": 1, "head_dim": 64},
        {"scheme": "q4f32_1"},
    ),
    # Windows of 20 tokens: within a chunk, across pages, and shorter than what is decoded.
    "gemma2, tied, q4f32_1": Model("Gemma2Config", GEMMA2, {"scheme": "q4f32_1"}),
    "gemma3_text, two rotary embeddings": Model("Gemma3TextConfig", GEMMA3),
    "stablelm, biases, dynamic rope": Model(
        "StableLmConfig",
        {
            "num_key_value_heads": 2,
            "use_qkv_bias": True,
            "max_position_embeddings": CONTEXT // 4,
            "rope_parameters": scaled("dynamic"),
        },
    ),
    "stablelm, parallel, tied, norms of each head": Model(
        "StableLmConfig",
        {
            "num_key_value_heads": 2,
            "use_parallel_residual": True,
            "tie_word_embeddings": True,
            "qk_layernorm": True,
        },
    ),
}


def built_model(name: str, folder: Path, stages: Path) -> tuple[Built, Any, Any]:
    """A built model, its reference, and what adapts weights to that."""
    import transformers  # noqa: PLC0415 - only these tests need it

    reference = random_model(name, folder)
    if name == "minicpm":
        return build(folder, stages, scheme="q0f32"), reference, dict
    made = build(folder, stages, **MODELS[name].quantization)
    # What LongRoPE makes of a context of this length, whatever the length of a text.
    config = type(reference.config).from_dict(config_at_length(reference.config.to_dict(), CONTEXT))
    reference = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return made, reference.eval(), as_transformers_calls


def make_case(name: str, folder: Path, stages: Path) -> Case:
    made, reference, adapt = built_model(name, folder, stages)
    return Case(made, reference, FLOAT32, adapt)


def family_cases() -> list[FamilyCase]:
    models = {**MODELS, "minicpm": Model("LlamaConfig", MINICPM)}
    return [
        FamilyCase(
            name=name,
            family=model_type(model.config) if name in MODELS else name,
            settings=model.settings,
            quantization=model.quantization,
            make=partial(make_case, name),
        )
        for name, model in models.items()
    ]


@pytest.fixture(scope="module", params=[*MODELS, "minicpm"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, stages = (tmp_path_factory.mktemp(name) for name in ("model", "stages"))
    return built_model(request.param, folder, stages)


@pytest.fixture
def case(built: Any, request: pytest.FixtureRequest) -> Iterator[Case]:
    made, reference, adapt = built
    found = Case(made, reference, FLOAT32, adapt)
    yield found
    print(f"{request.node.name}: {found.worst:.1e}")


def test_every_position_of_a_prefill(case: Case) -> None:
    check_every_position(case)


def test_chunked_prefill_then_decode(case: Case) -> None:
    check_chunks_then_decoding(case)


def test_ragged_batches(case: Case) -> None:
    check_ragged_batches(case)


def test_forks(case: Case) -> None:
    check_forks(case)


@pytest.mark.parametrize(
    ("original", "length"), [(CONTEXT, 3), (CONTEXT, CONTEXT), (64, 65), (64, CONTEXT)]
)
def test_longrope_is_that_of_transformers_on_both_sides_of_the_original_length(
    phi3: dict[int, Any], original: int, length: int
) -> None:
    """Here transformers chooses the factors, by the length of the text."""
    made, model = phi3[original]
    case = Case(made, model, FLOAT32)
    tokens = tokens_of(length)
    case.engine.add(0)
    case.expect(case.engine.prefill(0, tokens), case.reference(tokens)[-1])


@pytest.fixture(scope="module")
def phi3(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    from transformers import Phi3Config  # noqa: PLC0415

    made = {}
    for original in (64, CONTEXT):
        config = Phi3Config(**SIZES, **SPECIAL_IDS, **longrope(original))
        folder, stages = (tmp_path_factory.mktemp(name) for name in ("model", "stages"))
        reference = save_random_model(config, folder, seed=3)
        made[original] = build(folder, stages, scheme="q0f32"), reference
    return made


@pytest.mark.parametrize("name", ["minicpm", "gpt_neox, parallel", "gemma, wide heads, q4f32_1"])
def test_the_reference_of_verification_is_the_same_model(tmp_path: Path, name: str) -> None:
    """Where transformers has other names than checkpoints, or another architecture's."""
    model = random_model(name, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path), tmp_path)
    tokens = tokens_of(40)
    expected = model(torch.tensor([tokens]), use_cache=False).logits[0].detach().numpy()
    found = from_checkpoint(checkpoint).logits(tokens)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-6
