"""Evaluation text: what is read, and how it becomes windows."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.errors import UsageError
from edgec.verification.text import Document, load_documents, text_digest, windows


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert load_documents("a.txt", tmp_path) == [Document("a.txt", "one\ntwo\n")]
    assert load_documents(str(tmp_path / "a.txt"), Path("/nowhere"))[0].text == "one\ntwo\n"


def test_a_folder_in_the_order_of_its_paths(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "a").mkdir(parents=True)
    for name in ("b.txt", "a/z.md", "B.py", "c.json", "a.txt"):
        (folder / name).write_text(name)
    documents = load_documents("texts", tmp_path)
    assert [document.name for document in documents] == ["B.py", "a.txt", "a/z.md", "b.txt"]
    assert all(document.text == document.name for document in documents)


def test_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(
        "# held out\nshlex.py\n\njson/decoder.py # why\nno_such_module.py\n"
    )
    documents = load_documents("stdlib:list", tmp_path)
    assert [document.name for document in documents] == ["shlex.py", "json/decoder.py"]
    assert documents[0].text == Path(shlex.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("line", ["/etc/hosts", "../secret.py", "a/../../b.py"])
def test_the_standard_library_is_not_left(tmp_path: Path, line: str) -> None:
    (tmp_path / "list").write_text(f"shlex.py\n{line}\n")
    with pytest.raises(UsageError, match=r"list:2: .* leads out of the standard library"):
        load_documents("stdlib:list", tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.txt", r"nothing\.txt: can't be read: No such file"),
        ("stdlib:nothing", r"nothing: can't be read: No such file"),
        ("stdlib:unknown", r"unknown: none of the modules it names is in "),
        ("stdlib:blank.txt", r"blank\.txt: none of the modules it names is in "),
        ("empty", r"empty: the folder has no \*\.txt, \*\.md, \*\.py with text"),
        ("blank.txt", r"blank\.txt: the file has no text"),
        ("latin.txt", r"latin\.txt: byte 3 is not UTF-8 text; convert"),
    ],
)
def test_no_text(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "unknown").write_text("no_such_module.py\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "data.json").write_text("{}")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        load_documents(source, tmp_path)


def test_the_digest_knows_names_texts_and_order() -> None:
    a, b = Document("a", "bc"), Document("b", "")
    different = [[a, b], [b, a], [a], [Document("ab", "c"), b], [Document("a", "b"), b]]
    assert len({text_digest(documents) for documents in different}) == len(different)
    assert text_digest([a, b]) == text_digest((Document("a", "bc"), Document("b", "")))
    assert len(text_digest([])) == 64


def test_windows_of_two_documents() -> None:
    documents = [Document("a", "abcdef"), Document("b", "ghij"), Document("c", "klm")]
    cut = windows(documents, encode, 0, 3, 100)
    # The rest "f" of the first document is a window of one: 0 a b | c d e | (f) | ...
    assert cut == [
        [0, *encode("ab")],
        encode("cde"),
        [0, *encode("gh")],
        encode("ij"),
        [0, *encode("kl")],
    ]


def test_windows_without_a_first_token() -> None:
    assert windows([Document("a", "abcd")], encode, None, 2, 100) == [encode("ab"), encode("cd")]


def test_the_last_window_is_cut() -> None:
    assert windows([Document("a", "abcdefgh")], encode, 0, 4, 6) == [
        [0, *encode("abc")],
        encode("de"),
    ]


def test_documents_that_are_not_needed_are_not_encoded() -> None:
    seen: list[str] = []

    def spy(text: str) -> list[int]:
        seen.append(text)
        return encode(text)

    windows([Document("a", "abc"), Document("b", "def")], spy, 0, 4, 4)
    assert seen == ["abc"]


def test_a_text_that_is_too_short() -> None:
    with pytest.raises(UsageError, match=r"quality\.text: .* fewer than two tokens"):
        windows([Document("a", ""), Document("b", "")], encode, 0, 4, 4)


@given(
    texts=st.lists(st.text(alphabet="abcdef", max_size=30), min_size=1, max_size=6),
    bos=st.none() | st.just(0),
    window=st.integers(2, 12),
    tokens=st.integers(2, 80),
)
def test_windows_have_their_properties(
    texts: list[str], bos: int | None, window: int, tokens: int
) -> None:
    documents = [Document(str(index), text) for index, text in enumerate(texts)]
    streams = [([] if bos is None else [bos]) + encode(text) for text in texts]
    usable = sum(len(ids) - (len(ids) % window == 1) for ids in streams if len(ids) >= 2)
    if not usable:
        with pytest.raises(UsageError):
            windows(documents, encode, bos, window, tokens)
        return
    cut = windows(documents, encode, bos, window, tokens)
    total = sum(map(len, cut))
    assert all(2 <= len(part) <= window for part in cut)
    assert total <= tokens
    # Nothing is left out but what can't be a window of two.
    assert total == usable if usable <= tokens else total >= tokens - 1
    # The windows are pieces of the streams, in their order.
    rest = [(ids, start) for ids in streams for start in range(0, len(ids), window)]
    for part in cut:
        while rest[0][0][rest[0][1] : rest[0][1] + len(part)] != part:
            rest.pop(0)
        rest.pop(0)
