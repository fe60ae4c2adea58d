from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_texts import MINIMAL, load, problem

from edgec import resources
from edgec.errors import EdgecError, UsageError
from edgec.recipe import (
    find_recipe,
    list_recipes,
    load_any_recipe,
    load_recipe,
    parse_model_source,
    parse_text_source,
)
from edgec.recipe.names import check_name, names_in


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, so that messages show the short path that was given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults(folder: Path) -> None:
    loaded = load(MINIMAL)
    assert loaded.path == Path("r.yaml")
    assert loaded.base == folder
    assert loaded.overrides == ()
    recipe = loaded.recipe
    assert (recipe.context.length, recipe.context.prefill_chunk) == (None, 2048)
    assert recipe.context.max_batch_size == 4
    assert recipe.context.kv_cache_dtype == "auto"
    assert recipe.quantization.method == "rtn"
    assert recipe.quantization.group_size == 32
    assert recipe.quality.text is None
    assert recipe.generation.temperature == 0.7
    assert recipe.tuning.timeout_s == 1800


@pytest.mark.parametrize("path", sorted(resources.folder("recipes").glob("*.yaml")), ids=str)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_any_recipe(path).recipe
    assert recipe.name == path.stem
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=../docs/schemas/recipe.schema.json"


def test_tinypy_names_files_that_exist() -> None:
    loaded = load_recipe(find_recipe("tinypy"))
    source = parse_model_source(loaded.recipe.model.source)
    assert (loaded.base / source.location / "config.json").is_file()
    text = parse_text_source(loaded.recipe.quality.text or "")
    assert (loaded.base / text.location).is_file()
    assert text.kind == "stdlib"


REPLACEMENTS = [
    # (old, new, the whole message)
    (
        "  scheme",
        "  group_size: 47\n  scheme",
        "r.yaml:5:3: quantization.group_size: 47 is not a multiple of 8; write 40 or 48",
    ),
    (
        "  scheme",
        "  group_size: 3\n  scheme",
        "r.yaml:5:3: quantization.group_size: 3 is not a multiple of 8; write 8",
    ),
    (
        "  scheme",
        '  group_size: "64"\n  scheme',
        (
            "r.yaml:5:3: quantization.group_size: '64' isn't a whole number; "
            "write 64, without quotes or a unit"
        ),
    ),
    (
        "  scheme",
        "  group_size: 64.0\n  scheme",
        "r.yaml:5:3: quantization.group_size: 64.0 isn't a whole number; write 64",
    ),
    (
        "q4f16_1",
        "q4f16",
        (
            "r.yaml:5:3: quantization.scheme: 'q4f16' isn't one of the accepted values; did you mean "
            "q4f16_1? (write one of q0f32, q0f16, q4f16_1, q4f32_1, q8f16_1 or q8f32_1)"
        ),
    ),
    (
        "  scheme: q4f16_1",
        "  scheme: q0f32\n  group_size: 64",
        (
            "r.yaml:6:3: quantization.group_size: 64 has no effect, q0f32 doesn't quantize; remove "
            "the field, or set it to null with -s quantization.group_size=null"
        ),
    ),
    (
        "edgec.recipe/v1",
        "edgec.recipe/v2",
        (
            "r.yaml:1:1: schema: 'edgec.recipe/v2' isn't one of the accepted values; "
            "write edgec.recipe/v1"
        ),
    ),
    (
        "name: small",
        "name:",
        "r.yaml:2:1: name: this field is missing; add 'name: tinypy'",
    ),
    (
        "name: small",
        "name: 1.5",
        "r.yaml:2:1: name: 1.5 is a number, and text is needed; put it in quotes: '1.5'",
    ),
    (
        "name: small",
        "name: Big One",
        (
            "r.yaml:2:1: name: 'Big One' isn't accepted here; write lower-case letters, digits, "
            "'.', '_' and '-', starting with a letter or digit"
        ),
    ),
    (
        "[host]",
        "host",
        "r.yaml:6:1: targets: 'host' is given, and a list is needed; write [host]",
    ),
    (
        "[host]",
        "[]",
        "r.yaml:6:1: targets: the list or text is empty; write for example 'targets: [host]'",
    ),
    (
        "[host]",
        "[host, host]",
        "r.yaml:6:17: targets.1: 'host' is listed twice; remove one of the two",
    ),
    (
        "{source: small}",
        "{source: small, seed: 3}",
        (
            "r.yaml:3:24: model.seed: a seed has no effect on 'small'; "
            "remove it, or use a synthetic: source"
        ),
    ),
    (
        "{source: small}",
        "small",
        (
            "r.yaml:3:1: model: 'small' is given, and a mapping of fields is needed; "
            "write for example 'model: {source: tinypy}'"
        ),
    ),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("old", "new", "expected"), REPLACEMENTS)
def test_a_wrong_value_gives_place_field_and_remedy(old: str, new: str, expected: str) -> None:
    assert problem(MINIMAL.replace(old, new, 1)) == expected


ADDITIONS = [
    ("contxt: {}", "r.yaml:7:1: contxt: unknown field; did you mean context?"),
    (
        "group_size: 32",
        "r.yaml:7:1: group_size: unknown field; move it: it belongs at quantization.group_size",
    ),
    ("budget: {memory_mb: 200 MB}", "budget.memory_mb: '200 MB' isn't a whole number; write 200,"),
    ("budget: {memory_mb: 2k}", "isn't a whole number; write for example 'memory_mb: 2048'"),
    ("budget: {memory_mb: true}", "r.yaml:7:10: budget.memory_mb: true isn't a whole number"),
    (
        "context: {length: 100, prefill_chunk: 200}",
        (
            "r.yaml:7:24: context.prefill_chunk: 200 is more than the context length of 100; "
            "write at most 100"
        ),
    ),
    ("context: {length: 0}", "context.length: 0 is too small; write at least 1"),
    (
        "context: {length: 100, sliding_window: 100}",
        (
            "r.yaml:7:24: context.sliding_window: a window of 100 leaves no room for new tokens in "
            "the context length of 100; write less than 100"
        ),
    ),
    (
        "context: {length: 100, sliding_window: 60, prefill_chunk: 50}",
        (
            "r.yaml:7:44: context.prefill_chunk: 50 new tokens and a window of 60 are more than the"
            " context length of 100; write at most 40"
        ),
    ),
    (
        "context: {sliding_window: 8, attention_sinks: 8}",
        (
            "r.yaml:7:30: context.attention_sinks: 8 first tokens leave no room for others in the"
            " window of 8; write less than 8"
        ),
    ),
    (
        "context: {attention_sinks: 4}",
        (
            "r.yaml:7:11: context.attention_sinks: it has no effect without a sliding window; add "
            "context.sliding_window"
        ),
    ),
    ("context: {sliding_window: 1}", "context.sliding_window: 1 is too small; write at least 2"),
    ("context: {sliding_window: yes}", "context.sliding_window: 'yes' isn't a whole number"),
    ("context: {length: 99999999}", "99999999 is too large; write at most 16777216"),
    ("generation: {temperature: 2.5}", "2.5 is too large; write at most 2"),
    ("generation: {temperature: hot}", "'hot' isn't a number; write for example"),
    ("generation: {top_p: 0}", "0 is too small; write a number greater than 0"),
    ("generation: {repetition_penalty: .nan}", "'.nan' isn't a number"),
    ("quality: {max_kl: 0.1}", "quality.max_kl: a limit needs text to be measured on; add"),
    ("quality: {text: t.txt, min_top1: 1.5}", "quality.min_top1: 1.5 is too large; write at most"),
    ("quality: {text: 'http://x.org/t'}", "is an address on the web; download it"),
    (
        "context: {length: 128}\nquality: {text: t.txt}",
        "r.yaml:8:1: quality.window: 256 is more than the context length of 128; write at most",
    ),
    ("exports: [onnx]", "exports.0: 'onnx' isn't one of the exports; leave it out, there are no"),
    ("tuning: {timeout_s: 0}", "tuning.timeout_s: 0 is too small; write at least 1"),
    ('"a\\nb": 1', "r.yaml:7:1: 'a\\nb': unknown field; the fields here are schema, kind, name"),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("added", "expected"), ADDITIONS)
def test_a_wrong_addition_is_explained(added: str, expected: str) -> None:
    message = problem(f"{MINIMAL}{added}\n")
    assert expected in message
    assert message.startswith("r.yaml:")
    assert "\n" not in message


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("[{match: a}]", "r.yaml:6:15: quantization.overrides.0.bits: this field is missing; add"),
        ("[{match: a, bits: 3}]", "bits: 3 isn't one of the accepted values; write one of 4, 8 or"),
        (
            "[{match: a, bits: '8'}]",
            "'8' isn't one of the accepted values; write 8, without quotes",
        ),
        ("[{match: '', bits: 8}]", "overrides.0.match: the list or text is empty"),
        ("[{match: a b, bits: 8}]", "parameter names hold no spaces"),
        ("[{match: a, bits: 16, group_size: 8}]", "an unquantized parameter (bits: 16) has no"),
        ("[{match: a, bits: 8, group_size: 12}]", "12 is not a multiple of 8; write 8 or 16"),
        (
            "[{match: 'a.*', bits: 8}, {match: 'a.b.*', bits: 4}]",
            "overrides.1.match: 'a.b.*' is never reached, 'a.*' matches before it; put the",
        ),
        ("[{match: 'a?', bits: 8}, {match: 'a?', bits: 4}]", "'a?' is never reached"),
        ("{match: a, bits: 8}", "quantization.overrides: a mapping is given, and a list is needed"),
    ],
)
def test_overrides_of_parameters_are_checked(overrides: str, expected: str) -> None:
    text = MINIMAL.replace("q4f16_1", f"q4f16_1\n  overrides: {overrides}")
    assert expected in problem(text)


@pytest.mark.usefixtures("folder")
def test_a_wildcard_that_an_earlier_one_only_seems_to_cover_is_kept() -> None:
    overrides = "[{match: 'a?b', bits: 8}, {match: 'a*b', bits: 4}]"
    recipe = load(MINIMAL.replace("q4f16_1", f"q4f16_1\n  overrides: {overrides}")).recipe
    assert [override.match for override in recipe.quantization.overrides] == ["a?b", "a*b"]


@pytest.mark.usefixtures("folder")
def test_all_problems_come_in_one_message() -> None:
    text = MINIMAL.replace("name: small", "naem: small").replace("[host]", "[hots, host]")
    lines = problem(text).splitlines()
    assert lines[0] == "r.yaml: 3 fields can't be accepted as written"
    assert lines[1] == "  r.yaml:1:1: name: this field is missing; add 'name: tinypy'"
    assert lines[2].startswith("  r.yaml:6:11: targets.0: 'hots' isn't one of the targets; did you")
    assert lines[3] == "  r.yaml:2:1: naem: unknown field; did you mean name?"
    assert len(lines) == 4


@pytest.mark.usefixtures("folder")
def test_a_flood_of_problems_is_cut() -> None:
    lines = problem(MINIMAL + "".join(f"f{index}: 1\n" for index in range(500))).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 480 more"


@pytest.mark.usefixtures("folder")
def test_an_item_that_is_wrong_does_not_make_its_list_empty() -> None:
    assert "empty" not in problem(MINIMAL.replace("[host]", "[nowhere]"))


@pytest.mark.usefixtures("folder")
def test_null_is_the_default() -> None:
    recipe = load(MINIMAL, "quantization.group_size=null", "context.length=").recipe
    assert recipe.quantization.group_size == 32
    assert recipe.context.length is None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("length", "chunk"), [(None, 2048), (100, 100), (2048, 2048), (9999, 2048)]
)
def test_the_default_prefill_chunk_fits_the_context(length: int | None, chunk: int) -> None:
    overrides = [] if length is None else [f"context.length={length}"]
    assert load(MINIMAL, *overrides).recipe.context.prefill_chunk == chunk


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "sinks", "chunk"),
    [
        ("{sliding_window: 512}", 4, 512),
        ("{sliding_window: 4096}", 4, 2048),
        ("{sliding_window: 3}", 2, 3),
        ("{sliding_window: 512, attention_sinks: 0}", 0, 512),
        ("{length: 600, sliding_window: 512, attention_sinks: 16}", 16, 88),
        ("{length: 600, sliding_window: 128, prefill_chunk: 256}", 4, 256),
        ("{length: 600}", 0, 600),
    ],
)
def test_a_window_has_first_tokens_and_a_chunk_that_fits(text: str, sinks: int, chunk: int) -> None:
    context = load(MINIMAL, f"context={text}").recipe.context
    assert (context.attention_sinks, context.prefill_chunk) == (sinks, chunk)


@pytest.mark.usefixtures("folder")
def test_text_may_be_longer_than_a_context_without_end() -> None:
    settings = ("context={length: 128, sliding_window: 64}", "quality.text=t.txt")
    assert load(MINIMAL, *settings).recipe.quality.window == 256


@pytest.mark.usefixtures("folder")
def test_a_scheme_can_be_switched_to_unquantized_alone() -> None:
    assert load(MINIMAL, "quantization.scheme=q0f32").recipe.quantization.scheme == "q0f32"


@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_file_is_a_recipe_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_bytes(raw)
    with pytest.raises(UsageError):
        load_recipe(path)


def test_names_are_listed_without_import(tmp_path: Path) -> None:
    (tmp_path / "rtn.py").write_text("raise RuntimeError")
    (tmp_path / "_private.py").touch()
    (tmp_path / "__init__.py").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "gptq").mkdir()
    (tmp_path / "gptq" / "__init__.py").touch()
    (tmp_path / "no_package").mkdir()
    assert names_in(tmp_path, ".py") == ["gptq", "rtn"]
    assert names_in(tmp_path, ".txt") == ["notes"]
    assert names_in(tmp_path / "missing", ".py") == []


def test_a_name_that_is_unknown_gets_the_close_ones() -> None:
    assert check_name("rtn", ["gptq", "rtn"], "methods") == "rtn"
    with pytest.raises(ValueError, match=r"'gptk' isn't one of the methods; did you mean gptq\?"):
        check_name("gptk", ["gptq", "rtn"], "methods")


def test_recipes_are_found_by_name_and_by_path(folder: Path) -> None:
    assert "tinypy" in list_recipes()
    assert find_recipe("tinypy") == resources.folder("recipes") / "tinypy.yaml"
    (folder / "mine.yaml").write_text(MINIMAL)
    assert find_recipe("mine.yaml") == Path("mine.yaml")
    assert find_recipe("./mine.yaml") == Path("mine.yaml")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tinypi", "tinypi: there is no recipe of this name; did you mean tinypy?"),
        ("zzz", "zzz: there is no recipe of this name; name one that comes with edgec ("),
        ("", "'': there is no recipe of this name"),
        ("mine2.yaml", "mine2.yaml: there is no such file; did you mean mine.yaml?"),
        ("x/tinypy.yaml", "the recipe that comes with edgec is called tinypy, without a path"),
        ("./", ".: this is a folder, not a recipe"),
        ("a\0b.yaml", "there is no such file"),
    ],
)
def test_recipes_that_are_not_found(folder: Path, name: str, expected: str) -> None:
    (folder / "mine.yaml").write_text(MINIMAL)
    with pytest.raises(EdgecError) as caught:
        find_recipe(name)
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2
