"""A model that the gguf package wrote: its config, tensors, codes and tokenizer are the original's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec import resources
from edgec.checkpoints import check_parameters, open_checkpoint, open_source
from edgec.checkpoints.codes import CodesForm, HasCodes
from edgec.checkpoints.gguf.checkpoint import GgufCheckpoint
from edgec.checkpoints.gguf.tokenizer import write_tokenizer
from edgec.models.causal_lm_parameters import model_parameters
from edgec.progress import Silent
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.quantization.run import quantize_checkpoint
from edgec.quantization.schemes import TensorScheme
from gguf_models import tinypy_tensors, write_tinypy

if TYPE_CHECKING:
    from pathlib import Path

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf")
    for kind in ("F16", "Q4_0", "Q5_0", "Q8_0"):
        write_tinypy(path / f"{kind}.gguf", kind)
    return path


def test_the_config_is_the_originals(folder: Path) -> None:
    original = json.loads((resources.folder("recipes") / "tinypy" / "config.json").read_text())
    source = open_source("F16.gguf", folder)
    assert source.kind == "gguf"
    assert source.config["rope_theta"] == original["rope_parameters"]["rope_theta"]
    same = source.config.keys() & original.keys()
    assert len(same) > 14
    assert {key: source.config[key] for key in same} == {key: original[key] for key in same}


def test_float16_tensors_are_the_originals_also_in_ranges(folder: Path) -> None:
    checkpoint = open_checkpoint("F16.gguf", folder)
    check_parameters(checkpoint, model_parameters(checkpoint.config))
    originals = tinypy_tensors()
    assert checkpoint.names() == sorted(originals)
    for name, values in originals.items():
        rows = values.shape[0]
        for start, stop in ((0, rows), (1, 2), (17, min(rows, 111)), (rows - 33, rows)):
            np.testing.assert_array_equal(checkpoint.rows(name, start, stop), values[start:stop])


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_0", 8), ("Q5_0", 8), ("Q8_0", 8)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_codes_are_taken_over_exactly(
    folder: Path, tmp_path: Path, kind: str, bits: int, dtype: str
) -> None:
    path = folder / f"{kind}.gguf"
    checkpoint = GgufCheckpoint(path)
    assert isinstance(checkpoint, HasCodes)
    parameters = model_parameters(checkpoint.config)
    scheme = TensorScheme(bits, 32, dtype)  # type: ignore[arg-type]
    schemes = {p.name: scheme if len(p.shape) == 2 else None for p in parameters}
    quantize_checkpoint(
        *(checkpoint, parameters, schemes, dtype, "rtn", tmp_path, Silent()),  # type: ignore[arg-type]
        threads=2,
    )
    index = json.loads((tmp_path / "quantized.json").read_text())
    methods = {tensor["name"]: tensor.get("method") for tensor in index["tensors"]}
    raw = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    with QuantizedCheckpoint(tmp_path) as quantized:
        for parameter in parameters:
            if schemes[parameter.name] is None:
                continue
            assert methods[parameter.name] == "checkpoint"
            whole = quantized.quantized(parameter.name, 0, parameter.shape[0])
            expected = [checkpoint.rows(s.name, 0, s.shape[0]) for s in parameter.sources]
            np.testing.assert_array_equal(whole.dequantize(), np.concatenate(expected))
        # The bytes of a tensor whose rows are in order, by the format: a scale, then its codes.
        blocks = raw["blk.0.ffn_down.weight"].reshape(
            -1, {"Q4_0": 18, "Q5_0": 22, "Q8_0": 34}[kind]
        )
        down = quantized.quantized("model.layers.0.mlp.down_proj.weight", 0, 256)
    np.testing.assert_array_equal(
        down.scales.ravel().astype(np.float16), blocks[:, :2].copy().view("<f2").ravel()
    )
    packed = blocks[:, -16:]
    codes = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.int8) - 8
    if kind == "Q5_0":
        fifth = blocks[:, 2:6].copy().view("<u4") >> np.arange(32, dtype=np.uint32) & 1
        codes = codes - 8 + 16 * fifth.astype(np.int8)
    elif kind == "Q8_0":
        codes = blocks[:, 2:].view(np.int8)
    np.testing.assert_array_equal(down.codes.reshape(-1, 32), codes)


def test_other_groups_are_quantized_anew(folder: Path, tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(folder / "Q4_0.gguf")
    assert checkpoint.codes("model.layers.0.mlp.up_proj.weight") == CodesForm(4, 32, "float16")
    assert checkpoint.codes("model.norm.weight") is None
    parameters = model_parameters(checkpoint.config)
    scheme = TensorScheme(4, 64, "float16")
    schemes = {p.name: scheme if len(p.shape) == 2 else None for p in parameters}
    quantize_checkpoint(
        checkpoint, parameters, schemes, "float16", "rtn", tmp_path, Silent(), threads=1
    )
    index = json.loads((tmp_path / "quantized.json").read_text())
    assert {tensor.get("method") for tensor in index["tensors"]} == {"rtn", None}


def test_the_tokenizer_gives_the_originals_ids(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415 - only this test needs it

    checkpoint = GgufCheckpoint(folder / "F16.gguf")
    names = write_tokenizer(checkpoint.file.metadata, tmp_path, "F16.gguf")
    assert names == ["tokenizer.json", "tokenizer_config.json"]
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    original = Tokenizer.from_file(str(resources.folder("recipes") / "tinypy" / "tokenizer.json"))
    for text in ("def f(x):\n    return x  # é 1234\t!", "", "  <|endoftext|>\r\n日本 don't 'll"):
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == original.encode(text, add_special_tokens=False).ids
        assert made.encode(text).ids == [0, *ids]
        assert made.decode(ids) == original.decode(ids)


def test_transformers_reads_the_same_weights(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - only this test
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # noqa: PLC0415

    checkpoint = GgufCheckpoint(folder / "Q8_0.gguf")
    model = LlamaForCausalLM(LlamaConfig(**checkpoint.config))
    read = load_gguf_checkpoint(str(checkpoint.path), return_tensors=True, model_to_load=model)
    assert set(checkpoint.names()) == read["tensors"].keys()
    for name, values in read["tensors"].items():
        rows = checkpoint.rows(name, 0, checkpoint.info(name).shape[0])
        np.testing.assert_array_equal(rows, values.float().numpy(), err_msg=name)
