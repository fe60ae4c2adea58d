from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec import yamlfile
from edgec.errors import UsageError
from edgec.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__)
def any_loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test on libyaml and on PyYAML's own parser: both must do."""
    monkeypatch.setattr(yamlfile, "_Loader", request.param)


def message(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        yamlfile.parse(text, "f.yaml")
    return str(caught.value)


@pytest.mark.usefixtures("any_loader")
def test_every_value_knows_its_place() -> None:
    document = yamlfile.parse("é: 1\nb:\n  - x\n  - {c: 2}\n", "dir/f.yaml")
    assert document.data == {"é": 1, "b": ["x", {"c": 2}]}
    assert document.places == {
        (): "dir/f.yaml:1:1",
        ("é",): "dir/f.yaml:1:1",
        ("b",): "dir/f.yaml:2:1",
        ("b", 0): "dir/f.yaml:3:5",
        ("b", 1): "dir/f.yaml:4:5",
        ("b", 1, "c"): "dir/f.yaml:4:6",
    }
    assert document.place(("b", 1, "missing", "deeper")) == "dir/f.yaml:4:5"


@pytest.mark.usefixtures("any_loader")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("012", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),  # YAML 1.1 reads the Norwegians' code as false
        ("on", "on"),
        ("12:30", "12:30"),  # and this as 750
        ("1_000", "1_000"),
        (".nan", ".nan"),  # JSON has none of these
        ("2024-01-01", "2024-01-01"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("hf:org/name@main", "hf:org/name@main"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    data = yamlfile.parse(f"a: {text}\n", "f.yaml").data
    assert data == {"a": value}
    assert type(data["a"]) is type(value)


@pytest.mark.usefixtures("any_loader")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1\n", "f.yaml:2:1: a tab is used for indentation; use spaces"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: a: the key is given twice, first in line 1; remove"),
        ("b: {a: 1, a: 2}", "f.yaml:1:11: b.a: the key is given twice"),
        ("match: *.norm\n", "f.yaml:1:8: text can't start with '*' here; put it in quotes"),
        ("a: &x 1\nb: *x\n", "f.yaml:1:4: anchors and aliases"),
        ("a: *x\n", "f.yaml:1:4: anchors and aliases"),
        ("a: !!python/object:os.system x\n", "f.yaml:1:4: the tag 'tag:yaml.org,2002:python"),
        ("a: !x y\n", "f.yaml:1:4: the tag '!x' isn't supported"),
        ("a: {<<: {b: 1}}", "f.yaml:1:5: merge keys ('<<') aren't supported; write"),
        ("? [a]\n: b\n", "f.yaml:1:3: a key is a list or a mapping"),
        ("a: b: c\n", "f.yaml:1:5: a ':' stands where no key can be"),
        ('a: 1\nb: "x\n', "f.yaml:2:4: a quote is opened and never closed; close it"),
        ("a: [1, 2\nb: 3\n", "f.yaml:1:4: a list that starts with '[' isn't closed"),
        ("a: {b: 1\nc: 2\n", "f.yaml:1:4: a mapping that starts with '{' isn't closed"),
        ("a: @x\n", "f.yaml:1:4: text can't start with '@'; put it in quotes"),
        ("a:\n   b: 1\n  c: 1\n", "f.yaml:3:3: this line doesn't fit those above it"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document starts here"),
        ("a: - b\n", "f.yaml:1:4: a list can't start on this line"),
        ('a: "\\q"\n', "a backslash in double quotes starts an unknown escape"),
        ('a: "\\e[31m"\n', "f.yaml:1:4: the text holds the control character '\\x1b'"),
        ("a: 1\nb: x\x07\n", "f.yaml:2:5: the character U+0007 can't stand in YAML"),
        ("a: " + "9" * 5000, "f.yaml:1:4: the number 99999"),
        ("a: 1e999", "f.yaml:1:4: the number 1e999 is too large"),
        ("a: " + "[" * 100, "f.yaml:1:36: values are nested deeper than 32 levels"),
        ("%YAML 3.0\n---\na: 1\n", "f.yaml:1:1: the %YAML line names an unknown version"),
    ],
)
def test_what_is_refused_is_explained(text: str, expected: str) -> None:
    assert expected in message(text)


def test_many_values_are_refused_soon() -> None:
    assert "more than 20,000 values" in message("[" + "a," * 400_000 + "]")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a: \xff\n", "f.yaml:1:4: the byte 0xff isn't UTF-8; save the file as UTF-8 text"),
        ("é: 1\nb: ".encode() + b"\xc3", "f.yaml:2:4: the byte 0xc3 isn't UTF-8"),
        (b"a" * (yamlfile.MAX_BYTES + 1), "f.yaml: the file is larger than 1 MiB"),
        (b"- a\n", "f.yaml:1:1: the file holds a list where a mapping of fields is expected"),
        (b"hello\n", "f.yaml:1:1: the file holds a single value"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, raw: bytes, expected: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    with pytest.raises(UsageError) as caught:
        yamlfile.load(path, name="f.yaml")
    assert str(caught.value).startswith(expected)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        yamlfile.load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="this is a folder"):
        yamlfile.load(tmp_path)
    with pytest.raises(UsageError, match="can't be read"):
        yamlfile.load(tmp_path / "a\0b")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    assert yamlfile.load(path).data == {}


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yamlfile.load(path).data == {"a": 1}
    assert yamlfile.load(path).place(("a",)).endswith(":1:1")


PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PRINTABLE, max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(PRINTABLE, max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON)
def test_json_reads_as_itself(value: Any) -> None:
    assert yamlfile.parse(canonical_json({"v": [value]}), "f").data == {"v": [value]}


def outcome_of(read: Callable[[], yamlfile.Document]) -> yamlfile.Document | UsageError:
    try:
        return read()
    except UsageError as error:
        return error


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_json_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_bytes(raw)
    outcome = outcome_of(lambda: yamlfile.load(path))
    if isinstance(outcome, UsageError):
        assert outcome.where.startswith(str(path))
    else:
        canonical_json(outcome.data).encode()


@settings(deadline=None)
@given(st.text("ab: -[]{}\"'\n\t#&*!|>%@,?1.e~\\u\r\x85\u2028é", max_size=40))
def test_any_yaml_like_text_gives_json_or_an_error(text: str) -> None:
    for loader in LOADERS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yamlfile, "_Loader", loader)
            outcome = outcome_of(lambda: yamlfile.parse(text, "f"))
        if isinstance(outcome, UsageError):
            assert outcome.remedy
            assert "\n" not in str(outcome)
        else:
            canonical_json(outcome.data).encode()
            assert all(place.count(":") == 2 for place in outcome.places.values())
