"""What the comparison of CPU engines makes of its measurements."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy as safetensors_numpy

from edgec.runtime.bench import Spread

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "benchmarks" / "cpu"


def load(name: str, folder: Path = FOLDER) -> ModuleType:
    """A module of the benchmark, which is no package."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder.parent))
        patch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location(f"cpu_{name}", folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    # Their names are short: another test's module may have the same.
    for found in set(sys.modules) - before:
        if str(folder.parent) in str(getattr(sys.modules[found], "__file__", "")):
            del sys.modules[found]
    return module


figures = load("figures")
options = load("options")
peers = load("peers")
program = load("__main__")
starts = load("starts")
steps = load("steps")
PREFILL = figures.Test("pp128", 128)
DECODE = figures.Test("tg64", 8, 64)


def result(name: str, **given: Any) -> Any:
    return figures.Result(name, **given)


def cells(lines: list[str]) -> list[list[str]]:
    """A table's rows without the line below its header."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def test_rates_count_the_tokens_that_are_timed() -> None:
    found = result("a", seconds={"pp128": [1.0, 0.5, 2.0], "tg64": [4.0]})
    assert found.rate(PREFILL) == Spread(64, 128, 256)
    assert found.rate(DECODE) == Spread(16, 16, 16)
    assert result("b").rate(PREFILL) is None


def test_speeds_are_smallest_middle_largest() -> None:
    found = result("a", seconds={"tg64": [4.0, 2.0, 1.0]}, machine=[1.0, 4.0, 2.25])
    rows = cells(figures.speed_table([found, result("b", failure="no memory")], [PREFILL, DECODE]))
    assert rows[0][1:] == ["pp128", "tg64", "load"]
    assert rows[1] == ["a", "-", "16.0/32.0/64.0", "2.2"]
    assert rows[2] == ["b", "-", "-", "-"]


def test_starts_are_compared_with_the_first_row() -> None:
    ours = result("a", starts=[1.0, 0.5, 4.0])
    rows = cells(figures.start_table([ours, result("b", starts=[2.5]), result("c", failure="no")]))
    assert rows[0][2] == "over a"
    assert rows[1:] == [["a", "0.50/1.00/4.00", "-", "-"], ["b", "2.50/2.50/2.50", "2.50", "-"]]


def test_a_ratio_over_one_says_that_ours_is_faster() -> None:
    ours = result("ours", seconds={"tg64": [2.0], "pp128": [1.0]})
    peer = result("peer", seconds={"tg64": [5.0]})
    compared = [(ours, peer), (ours, result("none"))]
    rows = cells(figures.ratio_table(compared, [PREFILL, DECODE]))
    assert rows[1:] == [["ours / peer", "-", "2.50"]]


def test_rows_are_compared_that_store_keys_and_values_alike() -> None:
    names = [("edgec", ""), ("edgec, int8 KV", "int8"), ("a", ""), ("b", ""), ("a, 8", "int8")]
    found = figures.pairs([result(name, cache=cache) for name, cache in names], "edgec")
    assert [(mine.name, other.name) for mine, other in found] == [
        ("edgec", "a"),
        ("edgec", "b"),
        ("edgec, int8 KV", "a, 8"),
    ]


def test_the_limit_is_what_memory_reads_over_what_a_token_reads() -> None:
    found = result("a", token_bytes=500_000_000, seconds={"tg64": [64 / 20]})
    limits = {"huge pages": [10e9, 20e9, 30e9], "4 KiB pages": [16e9], "none": []}
    rows = cells(figures.limit_table([found, result("b")], [PREFILL, DECODE], limits))
    assert len(rows) == 2
    assert rows[1] == ["a", "500", "40.0", "50 %", "32.0", "62 %"]


def test_keys_and_values_count_as_read() -> None:
    # In the middle of 64 tokens behind 968, 1000 positions are read.
    test = figures.Test("tg64 far", 968, 64)
    found = result("a", token_bytes=500e6, position_bytes=500e3, seconds={test.name: [64 / 10]})
    assert cells(figures.limit_table([found], [test], {"any": [20e9]}))[1][2:] == ["40.0", "50 %"]


def test_costs_name_memory_over_the_file() -> None:
    ours = result("a", load=0.5, start=1.25, file_bytes=700e6, peak=770e6, logits=[1.0, 0.0])
    peer = result("b", load=2.0, start=3.0, file_bytes=700e6, peak=1400e6, logits=[3.0, 3.0])
    unopened = result("c", failure="it can't be installed")
    rows = cells(figures.cost_table([ours, peer, unopened], ours))
    assert rows[1] == ["a", "0.50", "1.25", "700", "770", "1.10", "1.000"]
    assert rows[2] == ["b", "2.00", "3.00", "700", "1400", "2.00", "0.707"]
    assert len(rows) == 3
    assert figures.failures([ours, unopened]) == ["c: it can't be installed"]


def test_agreement_needs_both_and_a_length() -> None:
    assert figures.agreement([1.0], None) is None
    assert figures.agreement([0.0, 0.0], [1.0, 2.0]) == 0
    assert figures.agreement([1.0, 2.0], [-2.0, -4.0]) == pytest.approx(-1)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        figures.agreement([1.0, 2.0], [1.0])


def test_an_empty_table_prints_nothing() -> None:
    assert figures.table(["a", "b"], []) == []


def test_a_step_is_done_once(tmp_path: Path) -> None:
    done: list[Path] = []

    def work(place: Path) -> None:
        done.append(place)
        place.write_text("whole")

    for _ in range(2):
        assert steps.make(tmp_path / "model", "making", work).read_text() == "whole"
    assert len(done) == 1
    assert done[0].name != "model"


@pytest.mark.parametrize("movable", [True, False])
def test_a_step_that_fails_begins_again(tmp_path: Path, *, movable: bool) -> None:
    def fails(place: Path) -> None:
        place.mkdir()
        (place / "half").touch()
        raise steps.StepError("no space")

    def works(place: Path) -> None:
        place.mkdir()

    target = tmp_path / "folder"
    with pytest.raises(steps.StepError, match="no space"):
        steps.make(target, "making", fails, movable=movable)
    assert steps.make(target, "making", works, movable=movable) == target
    assert list(target.iterdir()) == []


def test_a_program_that_fails_is_named_by_its_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "print('ERROR: no such package'); print('good bye'); raise SystemExit(3)"
    with pytest.raises(steps.StepError, match="ERROR: no such package"):
        steps.run([sys.executable, "-c", code], log)
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(steps.StepError, match="too little memory: 1000000 GB have to stay free"):
        steps.run(sleeps, log, spare=1e15)
    assert steps.reason("", 3) == "exit status 3"
    assert steps.reason("first\nlast\n\n", 1) == "last"


def test_a_long_context_is_a_phase_of_its_own() -> None:
    names = [[test.name for test in phase] for phase in options.phases([8192, 3000], None)]
    assert names == [["pp128", "pp512", "tg64"], ["tg64 at 2k"], ["tg64 at 3000"], ["tg64 at 8k"]]
    (only,) = options.phases([8192], ["tg64 at 8k"])
    assert [(test.prompt, test.generated) for test in only] == [(8192, 64)]
    assert options.room(only) == 8448
    assert options.room(options.phases([], ["pp128"])[0]) == 2304
    with pytest.raises(SystemExit, match="there is no test 'tg64 at 8k': pp128"):
        options.phases([], ["tg64 at 8k"])


def test_rows_with_another_cache_come_when_asked_for() -> None:
    names = [entry.name for entry in peers.entries(kv_cache="int8")]
    assert names[:2] == ["edgec", "edgec, int8 KV"]
    assert not any("KV" in entry.name for entry in peers.entries())
    known = peers.entries(avx512=False, kv_cache="int8")
    chosen = options.choose(known, ["llama.cpp Q4_K_M"])
    assert [(entry.name, entry.request.get("cache"), entry.cache) for entry in chosen] == [
        ("edgec", None, ""),
        ("edgec, int8 KV", None, "int8"),
        ("llama.cpp Q4_K_M", "f16", ""),
        ("llama.cpp Q4_0-pure, int8 KV", "q8_0", "int8"),
        ("llama.cpp Q4_0-pure, int8 KV, huge pages", "q8_0", "int8"),
    ]
    assert [entry.request["mmap"] for entry in chosen[3:]] == [True, False]
    assert not chosen[3].variables
    assert chosen[4].variables


def test_a_row_knows_its_cache_and_why_its_engine_is_missing() -> None:
    *_, entry = peers.entries(avx512=False, kv_cache="int8")
    found, model = program.prepare(entry, None, {entry.environment: "no compiler"})
    assert (found.name, found.cache, found.failure) == (entry.name, "int8", "no compiler")
    assert model is None


def test_a_program_has_started_when_it_prints(tmp_path: Path) -> None:
    code = "import sys, time; print('a', flush=True); time.sleep(0.6); print('b')"
    seconds = starts.command_start([sys.executable, "-c", code], tmp_path / "log")
    assert 0 < seconds < 0.6
    failing = [sys.executable, "-c", "raise SystemExit('no tokenizer')"]
    with pytest.raises(starts.EngineError, match="no tokenizer"):
        starts.command_start(failing, tmp_path / "log")


def test_a_start_that_fails_is_the_last(tmp_path: Path) -> None:
    row = result("a")
    asked: list[int] = []

    def start() -> float:
        asked.append(1)
        if len(asked) == 2:
            raise starts.EngineError("killed")
        return 0.5

    for _ in range(3):
        starts.measure(row, start)
    assert row.starts == [0.5]
    assert row.failure == "killed"
    assert len(asked) == 2


CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 40,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
    "bos_token_id": 3,
    "eos_token_id": [4, 5],
}


def test_a_gguf_file_holds_the_weights_that_edgec_computes(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    models = peers.Models(CONFIG, tmp_path, tmp_path, "host", "q4f16_1", 64)
    folder = models.checkpoint()
    whole = safetensors_numpy.load_file(folder / "model.safetensors")
    script = str(FOLDER / "sides" / "write_gguf.py")
    for kind, step in (("F16", 0.0), ("Q4_0", 1 / 8)):
        file = tmp_path / f"{kind}.gguf"
        subprocess.run([sys.executable, script, str(folder), str(file), kind], check=True)
        read = {tensor.name: tensor for tensor in gguf.GGUFReader(str(file)).tensors}
        assert len(read) == len(whole)
        for name, other in (
            ("token_embd", "model.embed_tokens"),
            ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
            ("output_norm", "model.norm"),
        ):
            values = whole[f"{other}.weight"].astype(np.float32)
            tensor = read[f"{name}.weight"]
            found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert found.shape == values.shape
            # The last code is missing on one side: a block is off by a step there at most.
            limit = step * np.abs(values).max() if values.ndim == 2 else 0.0
            assert np.abs(found - values).max() <= limit
            assert tensor.tensor_type.name == (kind if values.ndim == 2 else "F32")
    # The rows of a head change from halves to neighbours.
    query = whole["model.layers.0.self_attn.q_proj.weight"]
    tensor = gguf.GGUFReader(str(tmp_path / "F16.gguf")).tensors
    (turned,) = [np.array(t.data) for t in tensor if t.name == "blk.0.attn_q.weight"]
    np.testing.assert_array_equal(turned[[0, 1, 2, 3, 16]], query[[0, 8, 1, 9, 16]])
    models.tidy()
    assert not folder.exists()
    assert json.loads((models.source / "config.json").read_bytes())["dtype"] == "float16"
