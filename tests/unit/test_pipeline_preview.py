"""Sizes of a build in advance, for a model made up by the test: TVM isn't loaded."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgec.artifacts.layout import LIBRARY_FACTS
from edgec.checkpoints import CodesForm, expected_forms
from edgec.checkpoints.gguf.file import GgufFile
from edgec.checkpoints.gguf.tokenizer import write_tokenizer
from edgec.errors import UnsupportedModelError
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.parameters import Parameter, Source
from edgec.models.rope import Rope
from edgec.pipeline import preview as module
from edgec.pipeline.filedigests import FileDigests
from edgec.pipeline.plan import plan_build
from edgec.pipeline.preview import Preview, WeightGroup, preview
from edgec.pipeline.store import Store
from edgec.recipe import find_recipe, load_recipe
from edgec.stages.model_file import ModelFile
from edgec.target import load_target
from fuzz_parsers import PARSERS

PARAMETERS = [
    Parameter("embed.weight", (100, 64), "embedding", (Source("e", (100, 64)),)),
    Parameter("layer.weight", (64, 64), "linear", (Source("l", (64, 64)),)),
    Parameter("norm.weight", (64,), "norm", (Source("n", (64,)),)),
]
CACHE = KVCacheSpec(
    layers=2, heads=4, kv_heads=2, head_dim=16, rope=Rope(10000.0, 16), dtype="float32"
)
SMALL_FILES = 1000

Look = Callable[..., Preview]


class FakeFamily:
    cache = CACHE
    Config = SimpleNamespace(from_hf=lambda config: config)

    @staticmethod
    def build(config: Any, dtype: str) -> Any:
        assert dtype == "float32"
        return SimpleNamespace(cache_spec=FakeFamily.cache)


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    monkeypatch.setattr(module, "load_family", lambda _config: FakeFamily)
    monkeypatch.setattr(module, "model_parameters", lambda _config: PARAMETERS)
    store = Store(tmp_path / "cache")

    def look(*overrides: str, stored: dict[str, Path] | None = None) -> Preview:
        outputs = stored or {}

        def lookup(name: str, digest: str) -> Any:
            return SimpleNamespace(out=outputs[name]) if name in outputs else None

        monkeypatch.setattr(store, "lookup", lookup)
        loaded = load_recipe(find_recipe("tinypy"), overrides)
        target = load_target("x86-64-v3")
        return preview(plan_build(loaded, target, FileDigests(store), verify=False), store)

    return look


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    folder = tmp_path / "compiled"
    folder.mkdir()
    facts = {"library": "x.so", "metadata": {"memory_usage": {"prefill": 700, "decode": 50}}}
    (folder / LIBRARY_FACTS).write_text(json.dumps(facts))
    (folder / "x.so").write_bytes(bytes(5000))
    return folder


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    folder = tmp_path / "checked"
    folder.mkdir()
    ModelFile("llama", {}, (), ("tokenizer.json",)).write(folder)
    (folder / "config.json").write_bytes(bytes(12345))
    (folder / "tokenizer.json").write_bytes(bytes(SMALL_FILES))
    return folder


def test_weights_by_the_way_of_storing_them(look: Look) -> None:
    numbers, stored = 164 * 64, 176 * 64
    found = look()
    assert found.weights == (
        # Half a byte each, and a float32 scale for 32 of them, in whole tiles of 16 rows.
        WeightGroup("4 bits in groups of 32", 2, numbers, stored // 2 + stored // 32 * 4),
        WeightGroup("float32", 1, 64, 256),
    )
    assert found.memory.weights == sum(group.bytes for group in found.weights)
    assert found.bits_per_weight == pytest.approx(8 * found.memory.weights / (numbers + 64))


def test_overrides_are_groups_of_their_own(look: Look) -> None:
    found = look(
        "quantization.overrides.0.match=layer.*",
        "quantization.overrides.0.bits=8",
        "quantization.overrides.0.group_size=64",
    )
    assert {group.storage: group.weights for group in found.weights} == {
        "8 bits in groups of 64": 64 * 64,
        "4 bits in groups of 32": 100 * 64,
        "float32": 64,
    }
    sizes = [group.bytes for group in found.weights]
    assert sizes == sorted(sizes, reverse=True)


def test_before_compilation_the_workspace_and_the_library_are_unknown(look: Look) -> None:
    found = look("context.length=100", "quality.window=64", "context.prefill_chunk=64")
    assert found.memory.workspace is None
    assert found.library is None
    # 112 positions in whole pages, keys and values of 2 layers with 2 heads of 16 floats.
    assert found.memory.kv_cache == 112 * 2 * 2 * 2 * 16 * 4
    assert found.memory.total == found.memory.weights + found.memory.kv_cache
    assert [check.complete for check in found.budgets] == [False, False]


@pytest.mark.parametrize(
    ("dtype", "row"), [("auto", 16 * 4), ("float16", 16 * 2), ("int8", 16 + 4)]
)
def test_the_type_of_the_cache_is_counted(look: Look, dtype: str, row: int) -> None:
    found = look(f"context={{length: 64, kv_cache_dtype: {dtype}}}", "quality.window=64")
    assert found.memory.kv_cache == 64 * 2 * 2 * 2 * row
    assert found.memory.kv_cache_dtype == {"auto": "float32"}.get(dtype, dtype)
    assert found.activations == "float32"


@pytest.mark.parametrize(("dtype", "width"), [("float16", 15), ("int8", 18)])
def test_heads_that_do_not_fit_into_rows(
    look: Look, monkeypatch: pytest.MonkeyPatch, dtype: str, width: int
) -> None:
    monkeypatch.setattr(FakeFamily, "cache", replace(CACHE, head_dim=width))
    with pytest.raises(
        UnsupportedModelError, match=f"heads of a multiple of .* have {width}"
    ) as error:
        look(f"context.kv_cache_dtype={dtype}")
    assert error.value.where == f"-s context.kv_cache_dtype={dtype}: context.kv_cache_dtype"
    look("context.kv_cache_dtype=auto")


def test_a_window_bounds_the_cache(look: Look) -> None:
    found = look("context={length: 100, sliding_window: 40}", "quality.window=64")
    # Three pages of 16 tokens, and two that may be filled in part.
    assert found.memory.kv_cache == 5 * 16 * 2 * 2 * 2 * 16 * 4
    assert found.memory.to_json()["sliding_window"] == 40


def test_what_was_compiled_is_counted(look: Look, compiled: Path, checked: Path) -> None:
    found = look(stored={"compile": compiled, "checkpoint": checked})
    assert found.library == 5000
    assert found.memory.largest_workspace == 700
    assert found.artifact == found.memory.weights + SMALL_FILES + 5000
    memory, artifact = found.budgets
    assert (memory.name, memory.bytes, memory.limit) == ("memory_mb", found.memory.total, 200 << 20)
    assert (artifact.name, artifact.bytes) == ("artifact_mb", found.artifact)
    assert memory.ok
    assert memory.complete


def test_the_tokenizers_size_is_known_before_any_stage_ran(look: Look, checked: Path) -> None:
    tokenizer = find_recipe("tinypy").parent / "tinypy" / "tokenizer.json"
    assert look().artifact > tokenizer.stat().st_size


def test_the_tokenizer_in_a_gguf_file_is_counted(look: Look, tmp_path: Path) -> None:
    raw = PARSERS["gguf"].seeds()[0]["model.gguf"]
    (tmp_path / "model.gguf").write_bytes(raw)
    found = look(
        *(f"model.source={tmp_path / 'model.gguf'}", "context.length=100"),
        *("quality.window=64", "context.prefill_chunk=64"),
    )
    metadata = GgufFile(tmp_path / "model.gguf").metadata
    write_tokenizer(metadata, tmp_path, "model.gguf")
    made = sum(
        (tmp_path / name).stat().st_size for name in ("tokenizer.json", "tokenizer_config.json")
    )
    assert made > 5_000
    assert found.artifact == found.memory.weights + made


def test_zero_points_that_the_checkpoint_has_are_counted(look: Look, checked: Path) -> None:
    codes = {"l": CodesForm(4, 128, "float16", zeros=True)}
    ModelFile("llama", {}, (), ("tokenizer.json",), codes).write(checked)
    found = look(stored={"checkpoint": checked})
    numbers = 64 * 64
    assert found.weights[1] == WeightGroup(
        # Four bits for the zero point of each group, 16 rows together.
        *("4 bits in groups of 32, with zero points", 1, numbers),
        numbers // 2 + numbers // 32 * 4 + numbers // 32 // 2,
    )


def test_what_the_config_of_a_model_on_the_hub_lets_expect() -> None:
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128}
    gptq = {"quant_method": "gptq", "bits": 8, "group_size": 64, "sym": False}
    with_zeros = {"l": CodesForm(4, 128, "float16", zeros=True)}
    for section, forms in (
        (awq, with_zeros),
        (gptq, {"l": CodesForm(8, 64, "float16", zeros=True)}),
        ({**gptq, "sym": True}, {"l": CodesForm(8, 64, "float16")}),
        ({**gptq, "desc_act": True}, {}),
        ({"quant_method": "fp8"}, {}),
        ({"quant_method": "unheard-of"}, {}),
        (None, {}),
    ):
        assert expected_forms({"quantization_config": section}, PARAMETERS) == forms


def test_a_broken_budget(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = look("budget.memory_mb=1", "budget.artifact_mb=null").budgets
    assert [(check.name, check.ok) for check in budgets] == [("memory_mb", True)]
    large = Parameter("large.weight", (40_000, 64), "linear", (Source("x", (40_000, 64)),))
    monkeypatch.setattr(module, "model_parameters", lambda _config: [*PARAMETERS, large])
    budgets = look("budget.memory_mb=1", "budget.artifact_mb=2").budgets
    assert [(check.name, check.ok) for check in budgets] == [
        ("memory_mb", False),
        ("artifact_mb", True),
    ]


def test_the_stages_come_along(look: Look, compiled: Path) -> None:
    stages = look(stored={"compile": compiled}).diagnosis.stages
    assert [stage.name for stage in stages if stage.stored] == ["compile"]
