"""Random weights instead of a recipe's own: which fields that changes, and what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_calls import call
from recipe_texts import MINIMAL

from edgec.artifacts.manifest import Provenance, build_manifest
from edgec.artifacts.memory_plan import MemoryPlan
from edgec.errors import CheckpointError, UsageError
from edgec.models.parameters import Parameter
from edgec.pipeline import model_source
from edgec.pipeline.model_source import open_model
from edgec.recipe import LoadedRecipe, load_recipe, local_config

HUB = MINIMAL.replace("source: small", "source: hf:org/name@main") + (
    "chat: {template: chatml}\nquality: {text: text.txt, max_kl: 0.1}\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def load(text: str, *overrides: str) -> LoadedRecipe:
    path = Path("r.yaml")
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides, synthetic=True)


def write_config(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "config.json").write_text('{"model_type": "llama"}')


def test_a_hub_model_takes_the_config_beside_the_recipe(folder: Path) -> None:
    write_config(folder, "r")
    loaded = load(HUB)
    assert loaded.recipe.model.source == "synthetic:r/config.json"
    assert loaded.recipe.chat.template == "completion"
    assert (loaded.recipe.quality.text, loaded.recipe.quality.max_kl) == (None, None)
    # The artifact's manifest shows them like those of the command line.
    assert loaded.overrides == (
        "model.source=synthetic:r/config.json",
        "quality=null",
        "chat.template=completion",
    )
    assert open_model(loaded).kind == "synthetic"


def test_overrides_come_after(folder: Path) -> None:
    write_config(folder, "r")
    loaded = load(HUB, "model.seed=7", "chat.template=llama-3")
    assert (loaded.recipe.model.seed, loaded.recipe.chat.template) == (7, "llama-3")


def test_a_source_from_the_command_line(folder: Path) -> None:
    write_config(folder, "other")
    loaded = load(HUB, "model.source=other")
    assert loaded.recipe.model.source == "synthetic:other/config.json"
    assert [text.partition("=")[0] for text in loaded.overrides].count("model.source") == 1


def test_a_tokenizer_keeps_its_chat_format(folder: Path) -> None:
    write_config(folder, "small")
    (folder / "small" / "tokenizer.json").write_text("{}")
    assert load(MINIMAL + "chat: {template: chatml}\n").recipe.chat.template == "chatml"


def test_a_synthetic_recipe_stays_as_it_is(folder: Path) -> None:
    text = HUB.replace("hf:org/name@main", "synthetic:a.json")
    assert load(text).overrides == ()
    assert load(text).recipe.quality.text == "text.txt"


@pytest.mark.parametrize(
    ("text", "file", "source"),
    [(HUB, "r/config.json", "hf:org/name@main"), (MINIMAL, "small/config.json", "small")],
)
def test_without_the_config(folder: Path, text: str, file: str, source: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(text)
    assert str(caught.value) == (
        f"{file}: random weights need the model's config.json, and there is none;"
        f" put the config.json of {source} there"
    )


def test_a_recipe_without_a_model_is_refused_as_ever(folder: Path) -> None:
    for model in ("", "model: 3\n", "model: {source: 3}\n", "model: {source: 'hf:a'}\n"):
        with pytest.raises(UsageError, match="model"):
            load(MINIMAL.replace("model: {source: small}\n", model))


def test_where_configs_are(folder: Path) -> None:
    write_config(folder, "r")
    path = folder / "r.yaml"
    assert local_config("hf:org/name", path) == "r/config.json"
    assert local_config("r", path) == "r/config.json"
    assert local_config("synthetic:r/config.json", path) == "r/config.json"
    assert local_config("hf:org/name", folder / "s.yaml") is None
    assert local_config("https://x", path) is None


def test_a_model_that_can_not_be_fetched_names_random_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CheckpointError("can't be reached", where="hf:org/name@main", remedy="check it")

    monkeypatch.setattr(model_source, "open_source", refuse)
    Path("r.yaml").write_text(HUB)
    loaded = load_recipe(Path("r.yaml"))
    with pytest.raises(CheckpointError, match=r"reached; check it$"):
        open_model(loaded)
    write_config(folder, "r")
    with pytest.raises(CheckpointError, match="check it, or build it with --weights synthetic, wh"):
        open_model(loaded)


def test_inspect_shows_a_recipe_that_was_not_built(folder: Path) -> None:
    called = call("inspect", "llama32-1b", "--weights", "synthetic", "--json")
    assert called.code == 0, called.err
    assert (called.data["source"], called.data["parameters"]) == ("config", 1_235_814_400)
    assert "has not been built" in call("inspect", "llama32-1b").err
    unsupported = folder / "r.yaml"
    unsupported.write_text(HUB)
    write_config(folder, "r")
    (folder / "r" / "config.json").write_text('{"model_type": "mamba"}')
    assert call("inspect", str(unsupported), "--weights", "synthetic").code == 3


@pytest.mark.parametrize(
    ("kind", "said"), [("synthetic", "synthetic"), ("folder", "own"), (None, "own")]
)
def test_the_manifest_says_so(kind: str | None, said: str) -> None:
    target = {
        "name": "t",
        "platform": "linux",
        "layout": "mlc",
        "cpu_features": [],
        "standin": "native",
    }
    wheels = {name: {"version": "1"} for name in ("apache-tvm", "apache-tvm-ffi")}
    library = {"library": "l", "model_lib": "m", "files": []}
    made = Provenance(
        digest="d",
        stages={},
        recipe={"name": "a", "quantization": {"scheme": "q4f16_1", "method": "rtn"}},
        overrides=(),
        target={**target, "standin_cpu": "", "limits": {}},
        architecture="x86_64",
        family="llama",
        parameters=[Parameter("w", (4, 4), "linear", ())],
        model_inputs={"model.kind": kind} if kind else {"model.commit": "0"},
        distributions=wheels,
        tools={},
        library={**library, "kernels": {}, "runtime_functions": [], "device_kernels": {}},
    )
    manifest = build_manifest(made, MemoryPlan(weights=1, kv_cache=1, context_length=1), {})
    assert manifest["model"]["weights"] == said
