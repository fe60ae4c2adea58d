"""What GGUF files say of models, and what edgec says of files that can't be used."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantization_fakes import Counter, parameter

from edgec.checkpoints import open_source
from edgec.checkpoints.codes import Codes, CodesForm
from edgec.checkpoints.gguf.checkpoint import GgufCheckpoint
from edgec.checkpoints.gguf.find import find_gguf
from edgec.checkpoints.gguf.tokenizer import write_tokenizer
from edgec.errors import CheckpointError, EdgecError, UnsupportedModelError
from edgec.quantization.run import quantize_checkpoint
from edgec.quantization.schemes import TensorScheme
from edgec.quantization.takeover import is_taken_over
from gguf_bytes import F32, STRING, Raw, llama_pairs, number, pair, tensor, text

if TYPE_CHECKING:
    from pathlib import Path

_Q4 = TensorScheme(4, 32, "float16")


def _write(
    path: Path, tensors: dict[str, tuple[tuple[int, ...], int, bytes]], *pairs: bytes
) -> Path:
    entries, data = [], b""
    for name, (shape, kind, raw) in tensors.items():
        entries.append(tensor(name, shape, kind, len(data)))
        data += raw + b"\0" * (-len(raw) % 32)
    path.write_bytes(Raw(pairs=list(pairs), tensors=entries, data=data).build())
    return path


def _floats(*shape: int) -> tuple[tuple[int, ...], int, bytes]:
    values = np.arange(int(np.prod(shape)), dtype="<f4")
    return shape, 0, values.tobytes()


def _q4(rows: int, columns: int, scale: float = 0.5) -> tuple[tuple[int, ...], int, bytes]:
    blocks = rows * columns // 32
    raw = np.random.default_rng(2).integers(0, 256, (blocks, 18), np.uint8)
    raw[:, :2] = np.full(blocks, scale, "<f2").view(np.uint8).reshape(blocks, 2)
    return (rows, columns), 2, raw.tobytes()


def test_rows_of_heads_are_put_in_order_in_any_range(tmp_path: Path) -> None:
    tensors = {
        "token_embd.weight": _floats(8, 64),
        "blk.0.attn_q.weight": _floats(64, 3),
        "blk.0.attn_k.weight": _floats(32, 3),
        "blk.0.attn_q.bias": _floats(64),
        "blk.0.attn_v.weight": _floats(32, 3),
    }
    checkpoint = GgufCheckpoint(_write(tmp_path / "a.gguf", tensors, *llama_pairs()))
    for kind, heads, rows in (
        ("q_proj.weight", 4, 64),
        ("k_proj.weight", 2, 32),
        ("q_proj.bias", 4, 64),
    ):
        name = f"model.layers.0.self_attn.{kind}"
        stored = np.arange(rows).reshape(heads, -1, 2)  # a0 b0 a1 b1
        order = stored.transpose(0, 2, 1).ravel()
        whole = checkpoint.rows(name, 0, rows)
        first = whole if whole.ndim == 1 else whole[:, 0] / 3
        assert first.tolist() == order.tolist()
        for start in range(0, rows, 5):
            for stop in range(start, rows + 1, 7):
                part = checkpoint.rows(name, start, stop)
                assert part.tolist() == whole[start:stop].tolist()
    values = checkpoint.rows("model.layers.0.self_attn.v_proj.weight", 0, 32)
    assert values.ravel().tolist() == list(range(96))


def test_gemmas_norms_are_lowered(tmp_path: Path) -> None:
    pairs = [
        pair("general.architecture", STRING, text("gemma")),
        *(raw.replace(b"llama.", b"gemma.") for raw in llama_pairs()[1:]),
    ]
    tensors = {"token_embd.weight": _floats(8, 64), "output_norm.weight": _floats(64)}
    checkpoint = GgufCheckpoint(_write(tmp_path / "a.gguf", tensors, *pairs))
    assert checkpoint.rows("model.norm.weight", 0, 3).tolist() == [-1, 0, 1]
    assert checkpoint.config["model_type"] == "gemma"
    assert checkpoint.config["tie_word_embeddings"] is True


def _vector(*values: float) -> tuple[tuple[int, ...], int, bytes]:
    return (len(values),), 0, np.array(values, "<f4").tobytes()


def _scaling(kind: str, factor: float) -> list[bytes]:
    return [
        pair("llama.rope.scaling.type", STRING, text(kind)),
        pair("llama.rope.scaling.factor", F32, struct.pack("<f", factor)),
    ]


_EMBEDDING = {"token_embd.weight": _floats(8, 64)}
UNUSABLE: dict[str, tuple[dict[str, Any], list[bytes], type[EdgecError], str]] = {
    "no architecture": (_EMBEDDING, [], CheckpointError, "general.architecture"),
    "unknown": (
        *(_EMBEDDING, [pair("general.architecture", STRING, text("bert"))]),
        *(UnsupportedModelError, "'bert'"),
    ),
    "no embedding": ({}, llama_pairs(), CheckpointError, "token_embd.weight is missing"),
    "missing": (_EMBEDDING, llama_pairs()[:-1], CheckpointError, "epsilon is missing"),
    "zero": (_EMBEDDING, llama_pairs(block_count=0), CheckpointError, "block_count is 0"),
    "large": (_EMBEDDING, llama_pairs(block_count=1 << 31), CheckpointError, "whole number"),
    "text": (
        *(_EMBEDDING, [*llama_pairs(), pair("llama.rope.freq_base", STRING, text("a"))]),
        *(CheckpointError, "freq_base is 'a'"),
    ),
    "nan": (
        *(
            _EMBEDDING,
            [*llama_pairs(), pair("llama.rope.freq_base", F32, struct.pack("<f", np.nan))],
        ),
        *(CheckpointError, "a positive number"),
    ),
    "parts": (
        *(_EMBEDDING, [*llama_pairs(), number("split.count", 3)]),
        *(CheckpointError, "one of 3 parts"),
    ),
    "heads": (
        *({**_EMBEDDING, "blk.0.attn_q.weight": _floats(60, 3)}, llama_pairs()),
        *(CheckpointError, "don't divide into 4 heads"),
    ),
    "another rule": (
        *({**_EMBEDDING, "rope_freqs.weight": _vector(1, 2, 3, 4, 5, 6, 7, 8)}, llama_pairs()),
        *(UnsupportedModelError, "isn't Llama 3's; put the model's config.json beside"),
    ),
    "no factor": (
        *({**_EMBEDDING, "rope_freqs.weight": _vector(*[0] * 8)}, llama_pairs()),
        *(CheckpointError, "numbers that aren't positive"),
    ),
    "few factors": (
        *({**_EMBEDDING, "rope_freqs.weight": _vector(1, 2)}, llama_pairs()),
        *(CheckpointError, "8 pairs are rotated"),
    ),
    "long alone": (
        *(
            {**_EMBEDDING, "rope_factors_long.weight": _vector(*[1] * 8)},
            [*llama_pairs(), number("llama.rope.scaling.original_context_length", 64)],
        ),
        *(CheckpointError, "rope_factors_short.weight is missing"),
    ),
    "no original length": (
        *({**_EMBEDDING, "rope_factors_long.weight": _vector(*[1] * 8)}, llama_pairs()),
        *(CheckpointError, "original_context_length is None"),
    ),
    "unknown scaling": (
        *(_EMBEDDING, [*llama_pairs(), *_scaling("magic", 4)]),
        *(UnsupportedModelError, "rope.scaling.type 'magic'"),
    ),
    "layers": (
        *(_EMBEDDING, llama_pairs(block_count=1 << 30)),
        *(CheckpointError, "a number up to 16,384"),
    ),
    "heads without width": (
        *(_EMBEDDING, llama_pairs(**{"attention.head_count": 1 << 20})),
        *(CheckpointError, "leaves a head any width"),
    ),
    "experts without an axis": (
        *(
            {**_EMBEDDING, "blk.0.ffn_up_exps.weight": _floats(8, 64)},
            [*llama_pairs(), number("llama.expert_count", 2), number("llama.expert_used_count", 2)],
        ),
        *(CheckpointError, "not that of experts"),
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_model_that_cant_be_used_is_refused(case: str, tmp_path: Path) -> None:
    tensors, pairs, error, what = UNUSABLE[case]
    path = _write(tmp_path / "a.gguf", tensors, *pairs)
    with pytest.raises(error, match=what) as raised:
        GgufCheckpoint(path)
    assert str(path) in str(raised.value)


def test_scaled_rotary_embeddings(tmp_path: Path) -> None:
    """Rules of which a file has the parameters; those of which it has results are elsewhere."""
    original = number("llama.rope.scaling.original_context_length", 64)
    path = tmp_path / "a.gguf"
    linear = GgufCheckpoint(_write(path, _EMBEDDING, *llama_pairs(), *_scaling("linear", 8)))
    assert linear.config["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    pairs = [*llama_pairs(), *_scaling("yarn", 4), original]
    assert GgufCheckpoint(_write(path, _EMBEDDING, *pairs)).config["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    for pairs in (_scaling("none", 4), _scaling("linear", 1)):
        config = GgufCheckpoint(_write(path, _EMBEDDING, *llama_pairs(), *pairs)).config
        assert "rope_scaling" not in config
    factors = {f"rope_factors_{n}.weight": _vector(*[1.1] * 8) for n in ("long", "short")}
    attention = pair("llama.rope.scaling.attn_factor", F32, struct.pack("<f", 1.5))
    tensors = {**_EMBEDDING, **factors}
    config = GgufCheckpoint(_write(path, tensors, *llama_pairs(), original, attention)).config
    assert config["rope_scaling"]["long_factor"] == [1.1] * 8
    assert config["rope_scaling"]["attention_factor"] == 1.5


def test_a_type_without_values_is_refused_by_name(tmp_path: Path) -> None:
    tensors = {**_EMBEDDING, "output.weight": ((2, 32), 20, bytes(36))}
    checkpoint = GgufCheckpoint(_write(tmp_path / "a.gguf", tensors, *llama_pairs()))
    with pytest.raises(CheckpointError, match="type is IQ4_NL"):
        checkpoint.rows("lm_head.weight", 0, 1)


def test_paths_mean_files(tmp_path: Path) -> None:
    assert find_gguf(tmp_path) is None
    path = _write(tmp_path / "a.gguf", _EMBEDDING, *llama_pairs())
    assert find_gguf(path) == find_gguf(tmp_path) == path
    assert open_source(str(tmp_path), tmp_path).kind == "gguf"
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4, "model_type": "llama"}')
    source = open_source("a.gguf", tmp_path)
    assert source.config == {"num_attention_heads": 4, "model_type": "llama"}
    assert source.config_file == tmp_path / "config.json"
    (tmp_path / "b.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"2 GGUF files.*a\.gguf"):
        find_gguf(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_gguf(tmp_path) is None


def _quantize(path: Path, out: Path, scale: float) -> None:
    tensors = {
        "token_embd.weight": _floats(8, 64),
        "blk.0.attn_q.weight": _q4(64, 64, scale),
        "blk.0.attn_v.weight": _floats(4, 64),
    }
    checkpoint = GgufCheckpoint(_write(path, tensors, *llama_pairs()))
    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qv"]
    fused = parameter("qv.weight", (68, 64), sources={names[0]: (64, 64), names[1]: (4, 64)})
    out.mkdir()
    quantize_checkpoint(
        checkpoint, [fused], {"qv.weight": _Q4}, "float16", "rtn", out, Counter(), threads=1
    )


def test_a_source_of_a_fused_parameter_is_taken_over_by_itself(tmp_path: Path) -> None:
    _quantize(tmp_path / "a.gguf", tmp_path / "out", 0.5)
    assert '"checkpoint, rtn"' in (tmp_path / "out" / "quantized.json").read_text()


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_no_number_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(CheckpointError, match=r"row 0 of .*q_proj.weight has a scale that is NaN"):
        _quantize(tmp_path / "a.gguf", tmp_path / "out", scale)


class _Coded:
    def __init__(self, form: CodesForm | None) -> None:
        self.form = form

    def codes(self, name: str) -> CodesForm | None:
        return self.form

    def code_rows(self, name: str, start: int, stop: int) -> Codes:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("form", "scheme", "taken"),
    [
        (None, _Q4, False),
        (CodesForm(4, 32, "float16"), None, False),
        (CodesForm(4, 32, "float16"), _Q4, True),
        (CodesForm(4, 32, "float16"), TensorScheme(4, 32, "float32"), True),
        (CodesForm(4, 32, "float32"), TensorScheme(4, 32, "float32"), True),
        (CodesForm(4, 32, "float32"), _Q4, False),
        (CodesForm(4, 32, "float16", zeros=True), _Q4, False),
        (CodesForm(4, 32, "float16", zeros=True), TensorScheme(4, 32, "float16", True), True),
        (CodesForm(4, 32, "float16"), TensorScheme(4, 32, "float16", True), True),
        (CodesForm(8, 32, "float16"), _Q4, False),
        (CodesForm(4, 32, "float16"), TensorScheme(8, 32, "float16"), True),
        (CodesForm(4, 128, "float16"), _Q4, True),
        (CodesForm(4, 16, "float16"), _Q4, False),
        (CodesForm(4, 48, "float16"), _Q4, False),
    ],
)
def test_codes_fit_or_not(form: CodesForm | None, scheme: TensorScheme | None, taken: bool) -> None:
    assert is_taken_over(_Coded(form), "a", scheme) == taken  # type: ignore[arg-type]


_TOKENIZER: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<s>"],
    "tokenizer.ggml.token_type": np.array([1, 1, 1, 3], np.int32),
    "tokenizer.ggml.merges": ["a b"],
}


def test_a_file_without_a_tokenizer_gives_none(tmp_path: Path) -> None:
    assert write_tokenizer({}, tmp_path, "a.gguf") == []
    assert write_tokenizer(_TOKENIZER, tmp_path, "a.gguf") == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "llama"},
        {"pre": "unheard-of"},
        {"pre": None},
        {"tokens": None},
        {"tokens": ["a", "b", "ab", "a"]},
        {"token_type": None},
        {"token_type": np.array([1], np.int32)},
        {"merges": ["a c"]},
        {"merges": ["ab"]},
        {"eos_token_id": 4},
        {"add_bos_token": True},
    ],
)
def test_a_tokenizer_that_isnt_exact_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    metadata = {**_TOKENIZER, **{f"tokenizer.ggml.{key}": value for key, value in change.items()}}
    with pytest.raises(CheckpointError, match="beside the file"):
        write_tokenizer(metadata, tmp_path, "a.gguf")
