"""The reference must be the model that transformers itself would load."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec import resources
from edgec.checkpoints import open_checkpoint
from edgec.errors import CheckpointError, ToolchainError, VerificationError
from edgec.layouts import dot4, mlc
from edgec.layouts.pack import pack_checkpoint
from edgec.models.parameters import Parameter, Source
from edgec.progress import Silent
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.run import quantize_checkpoint
from edgec.quantization.schemes import SCHEMES
from edgec.verification.reference import from_artifact, from_checkpoint, reference_model
from edgec.verification.rounding import rounded as rounded_input
from edgec.verification.rounding import rounding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.checkpoints import Checkpoint
    from edgec.layouts.find import Layout
    from edgec.quantization.schemes import TensorScheme

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINYPY = resources.folder("recipes") / "tinypy"
IDS = np.random.default_rng(0).integers(0, 100, 50).tolist()
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 120,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": True,
    "mlp_bias": True,
    # As checkpoints write it: neither may have an effect on a float32 reference.
    "dtype": "float16",
    "torch_dtype": "float16",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "untied, biases": {},
    "tied": {"tie_word_embeddings": True},
    "llama3": {"rope_parameters": {"rope_theta": 500.0, **LLAMA3}},
    "llama3, old style": {"rope_theta": 500.0, "rope_scaling": LLAMA3},
}


def saved(folder: Path, changes: dict[str, Any]) -> Checkpoint:
    """Random weights of a small model, as transformers saves them."""
    torch.manual_seed(0)
    settings = transformers.LlamaConfig(**{**SMALL, **changes})
    settings.initializer_range = 0.3
    model = transformers.LlamaForCausalLM(settings).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**SMALL, **changes}))
    return open_checkpoint(str(folder), folder)


def pretrained(folder: Path) -> np.ndarray:
    model = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        logits: np.ndarray = model.eval()(torch.tensor([IDS])).logits[0].numpy()
    return logits


def parameters_of(config: dict[str, Any]) -> list[Parameter]:
    """The fused parameters of a Llama, written down independently of the family's own map."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    vocabulary = (config["vocab_size"], hidden)
    found: list[Parameter] = []

    def add(name: str, role: Any, parts: dict[str, tuple[int, ...]]) -> None:
        sources = tuple(Source(part, shape) for part, shape in parts.items())
        rows = sum(source.shape[0] for source in sources)
        found.append(Parameter(name, (rows, *sources[0].shape[1:]), role, sources))

    def linear(path: str, fused: str, rows: dict[str, int], columns: int, *, bias: bool) -> None:
        parts = {f"{path}.{name}.weight": (count, columns) for name, count in rows.items()}
        add(f"{path}.{fused}.weight", "linear", parts)
        if bias:
            parts = {f"{path}.{name}.bias": (count,) for name, count in rows.items()}
            add(f"{path}.{fused}.bias", "bias", parts)

    def norm(name: str) -> None:
        add(f"{name}.weight", "norm", {f"{name}.weight": (hidden,)})

    add("model.embed_tokens.weight", "embedding", {"model.embed_tokens.weight": vocabulary})
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        bias = config["attention_bias"]
        fused = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        linear(f"{layer}.self_attn", "qkv_proj", fused, hidden, bias=bias)
        linear(f"{layer}.self_attn", "o_proj", {"o_proj": hidden}, queries, bias=bias)
        bias = config["mlp_bias"]
        fused = {"gate_proj": inner, "up_proj": inner}
        linear(f"{layer}.mlp", "gate_up_proj", fused, hidden, bias=bias)
        linear(f"{layer}.mlp", "down_proj", {"down_proj": hidden}, inner, bias=bias)
        norm(f"{layer}.input_layernorm")
        norm(f"{layer}.post_attention_layernorm")
    norm("model.norm")
    if not config["tie_word_embeddings"]:
        add("lm_head.weight", "head", {"lm_head.weight": vocabulary})
    return found


def shipped(
    checkpoint: Checkpoint, scheme_name: str, folder: Path, layout: Layout = mlc
) -> tuple[Path, Sequence[Parameter], dict[str, TensorScheme | None]]:
    """Quantize and pack a checkpoint."""
    scheme = SCHEMES[scheme_name]
    parameters = parameters_of(checkpoint.config)
    schemes = tensor_schemes(parameters, scheme, 32)
    quantized, weights = folder / "quantized", folder / "weights"
    quantized.mkdir(parents=True)
    weights.mkdir()
    quantize_checkpoint(
        checkpoint, parameters, schemes, scheme.dtype, "rtn", quantized, Silent(), threads=1
    )
    pack_checkpoint(
        QuantizedCheckpoint(quantized), parameters, weights, Silent(), layout=layout, threads=1
    )
    return weights, parameters, schemes


def test_tinypy_is_what_transformers_loads() -> None:
    reference = from_checkpoint(open_checkpoint(str(TINYPY), TINYPY))
    logits = reference.logits(IDS)
    assert logits.shape == (len(IDS), 4096)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, pretrained(TINYPY))
    np.testing.assert_array_equal(logits, reference.logits(IDS))


@pytest.mark.parametrize("variant", VARIANTS)
def test_small_models_are_what_transformers_loads(tmp_path: Path, variant: str) -> None:
    checkpoint = saved(tmp_path, VARIANTS[variant])
    logits = from_checkpoint(checkpoint).logits(IDS)
    np.testing.assert_array_equal(logits, pretrained(tmp_path))


def test_llama3_frequencies_matter(tmp_path: Path) -> None:
    """Otherwise the tests above would pass with wrong buffers."""
    checkpoint = saved(tmp_path, VARIANTS["llama3"])
    with_scaling = from_checkpoint(checkpoint).logits(IDS)
    plain = {**checkpoint.config, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}
    without = reference_model(plain, lambda name, out: checkpoint.rows_into(name, 0, len(out), out))
    assert np.abs(with_scaling - without.logits(IDS)).max() > 0.01


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_unquantized_artifact_is_the_original(tmp_path: Path, variant: str) -> None:
    checkpoint = saved(tmp_path, VARIANTS[variant])
    artifact = from_artifact(checkpoint.config, *shipped(checkpoint, "q0f32", tmp_path), mlc)
    np.testing.assert_array_equal(artifact.logits(IDS), from_checkpoint(checkpoint).logits(IDS))


@pytest.mark.parametrize("scheme", ["q4f16_1", "q4f32_1", "q8f32_1"])
@pytest.mark.parametrize("variant", ["untied, biases", "tied"])
def test_a_quantized_artifact_has_the_shipped_weights(
    tmp_path: Path, variant: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against weights that are quantized one by one, without fusing, packing or a file."""
    monkeypatch.setattr("edgec.verification.reference.BLOCK", 1000)  # several blocks per tensor
    checkpoint = saved(tmp_path, VARIANTS[variant])
    dtype = SCHEMES[scheme].dtype
    steps = 8 if scheme.startswith("q4") else 128

    def quantized(name: str, out: np.ndarray) -> None:
        weight = checkpoint.rows(name, 0, len(out))
        if weight.ndim == 1:
            out[:] = weight.astype(dtype)
            return
        groups = weight.reshape(-1, 32)
        highest, lowest = (f(groups, axis=1, keepdims=True) for f in (np.max, np.min))
        scales = (np.where(highest >= -lowest, highest, lowest) / -steps).astype(dtype)
        codes = np.clip(np.rint(groups / scales.astype(np.float32)), -steps, steps - 1)
        out[:] = (codes * scales.astype(np.float32)).reshape(weight.shape)

    artifact = from_artifact(checkpoint.config, *shipped(checkpoint, scheme, tmp_path), mlc)
    expected = reference_model(checkpoint.config, quantized).logits(IDS)
    np.testing.assert_allclose(artifact.logits(IDS), expected, rtol=0, atol=1e-4)
    assert np.abs(expected - from_checkpoint(checkpoint).logits(IDS)).max() > 1e-3


@pytest.mark.parametrize("variant", ["untied, biases", "tied"])
def test_rounded_activations_of_an_artifact_in_tiles(tmp_path: Path, variant: str) -> None:
    """Every linear layer's input against the definition, one group after the other."""
    checkpoint = saved(tmp_path, VARIANTS[variant])
    weights = shipped(checkpoint, "q4f32_1", tmp_path, dot4)
    artifact = from_artifact(checkpoint.config, *weights, dot4)
    rounded = artifact.rounded
    assert rounded is not None
    layers = [m for m in artifact._model.modules() if isinstance(m, torch.nn.Linear)]
    assert len(layers) == 7 * checkpoint.config["num_hidden_layers"] + 1

    def exact(_module: Any, arguments: tuple[torch.Tensor, ...]) -> torch.Tensor:
        groups = arguments[0].numpy().reshape(-1, 32)
        scales = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
        return torch.from_numpy((np.rint(groups / scales) * scales).reshape(arguments[0].shape))

    plain, found = artifact.logits(IDS), rounded.logits(IDS)
    hooks = [layer.register_forward_pre_hook(exact) for layer in layers]
    expected = artifact.logits(IDS)
    for hook in hooks:
        hook.remove()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(artifact.logits(IDS), plain)
    assert 1e-3 < np.abs(found - plain).max() < 0.1 * np.abs(plain).max()
    words = shipped(checkpoint, "q4f32_1", tmp_path / "words", mlc)
    assert from_artifact(checkpoint.config, *words, mlc).rounded is None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(64,), (5, 64), (2, 5, 64)])
def test_products_with_some_matrices_round_what_they_multiply(
    shape: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    layer, other = torch.nn.Linear(64, 24, bias=bias), torch.nn.Linear(64, 24, bias=bias)
    x = torch.randn(shape)
    x[..., :32] = 0
    with torch.no_grad():
        plain, wanted = layer(x), layer(rounded_input(x, 32))
    assert not torch.equal(plain, wanted)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            with rounding({layer.weight.data_ptr(): 32}):
                found, untouched = layer(x), other(x)
            assert torch.equal(found, wanted)
            assert torch.equal(untouched, other(x))
            assert torch.equal(layer(x), plain)


@pytest.mark.parametrize("way", ["eager", "grouped_mm"])
def test_products_with_experts_round_what_they_multiply(way: str) -> None:
    """However a version of transformers multiplies them."""
    from transformers.models.qwen3_moe import modeling_qwen3_moe  # noqa: PLC0415

    config = transformers.Qwen3MoeConfig(
        hidden_size=64,
        moe_intermediate_size=32,
        num_experts=3,
        experts_implementation=way,
        hidden_act="silu",
    )
    experts = modeling_qwen3_moe.Qwen3MoeExperts(config).requires_grad_(requires_grad=False)
    torch.manual_seed(0)
    up, down = (torch.nn.init.normal_(item) for item in experts.parameters())
    x, weights = torch.randn(5, 64), torch.rand(5, 2)
    ids = torch.tensor([[0, 2], [2, 1], [1, 0], [2, 0], [0, 1]])
    with rounding({up.data_ptr(): 32, down.data_ptr(): 16}):
        found = experts(x, ids, weights)
    wanted = torch.zeros_like(x)
    for token, slot in np.ndindex(5, 2):
        expert = ids[token, slot]
        gate, value = (up[expert] @ rounded_input(x[token], 32)).chunk(2)
        hidden = rounded_input(torch.nn.functional.silu(gate) * value, 16)
        wanted[token] += weights[token, slot] * (down[expert] @ hidden)
    # A number between two steps may fall on either side.
    assert (found - wanted).abs().max() < 1e-2 * wanted.abs().max()
    assert (found - wanted).abs().median() < 1e-6 * wanted.abs().max()
    assert (found - experts(x, ids, weights)).abs().median() > 1e-4 * wanted.abs().max()


def test_rounding_is_to_the_nearest_step_and_ties_to_even() -> None:
    x = torch.zeros(1, 64)
    x[0, :8] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 3.49, -126.6])
    x[0, 40] = 1e-30
    found = rounded_input(x, 32)
    assert found[0, :8].tolist() == [127, 0, 2, 2, 0, -2, 3, -127]
    assert found[0, 40] == x[0, 40]
    assert not found[0, 41:].any()


def test_an_artifact_of_another_model(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, {})
    weights, parameters, schemes = shipped(checkpoint, "q0f32", tmp_path)
    without_bias = {**checkpoint.config, "mlp_bias": False}
    with pytest.raises(VerificationError, match=r"no such tensor; the artifact has .*mlp.*bias"):
        from_artifact(without_bias, weights, parameters, schemes, mlc)
    with pytest.raises(VerificationError, match=r"lm_head\.weight .*; the artifact has none"):
        from_artifact(checkpoint.config, weights, parameters[:-1], schemes, mlc)
    wider = {**checkpoint.config, "vocab_size": 121}
    with pytest.raises(VerificationError, match=r"\(121, 64\); the artifact has \(120, 64\)"):
        from_artifact(wider, weights, parameters, schemes, mlc)


def test_a_checkpoint_that_lacks_a_tensor(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, {"attention_bias": False})
    with pytest.raises(CheckpointError, match=r"self_attn\.q_proj\.bias is not in this file"):
        reference_model(
            {**checkpoint.config, "attention_bias": True},
            lambda name, out: checkpoint.rows_into(name, 0, len(out), out),
        )


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str, out: np.ndarray) -> None:
        raise AssertionError(name)

    with pytest.raises(ToolchainError, match="doesn't know the architecture 'abacus'"):
        reference_model({"model_type": "abacus"}, nothing)
    with monkeypatch.context() as patch:
        # transformers puts a new module in its place when a model is first imported.
        patch.setattr(sys.modules["transformers"], "__version__", "4.57.1")
        with pytest.raises(ToolchainError, match=r"needs transformers 5 or newer, and 4\.57\.1 is"):
            reference_model(SMALL, nothing)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ToolchainError, match=r"pip install 'edgec\[reference\]'"):
        reference_model(SMALL, nothing)


def test_weights_are_in_memory_once_and_nothing_is_initialized() -> None:
    """A model of 800 MB may add little more than that to the process."""
    script = """
import resource
import numpy as np, torch, transformers
from edgec.verification.reference import reference_model
config = dict(
    model_type="llama", vocab_size=16000, hidden_size=2048, intermediate_size=8192,
    num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=8, head_dim=64,
    max_position_embeddings=64, tie_word_embeddings=False,
)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(
    vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1))
before, first, total = peak(), [], [0]
def fill(name, out):
    first.append(peak())
    total[0] += out.nbytes >> 20
    out[:] = 0.01
reference_model(config, fill)
print(before, first[0], peak(), total[0])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, unfilled, filled, size = map(int, run.stdout.split())
    assert size > 700
    assert unfilled - before < 100
    assert filled - before < size + 100
