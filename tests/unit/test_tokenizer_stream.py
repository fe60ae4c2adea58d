"""Text to ids and back, whole and token by token."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from chat_fakes import sentencepiece_like
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec import resources
from edgec.errors import CheckpointError, UsageError
from edgec.runtime.tokenizer import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TINYPY = resources.folder("recipes") / "tinypy"
EMOJI = "\U0001f600"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="session")
def tinypy() -> Tokenizer:
    return Tokenizer(TINYPY)


@pytest.fixture(scope="session", params=[False, True], ids=["prepend", "metaspace"])
def sentencepiece(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Tokenizer:
    folder = tmp_path_factory.mktemp("sentencepiece")
    return Tokenizer(sentencepiece_like(folder, metaspace=request.param))


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    stream = StreamDecoder(tokenizer)
    return [*(stream.push(token) for token in ids), stream.finish()]


@given(TEXT | st.from_regex(r"[ \t\n#()a-z_=]{0,60}", fullmatch=True))
def test_text_survives(tinypy: Tokenizer, text: str) -> None:
    ids = tinypy.encode(text)
    assert tinypy.decode(ids) == text
    streamed = pieces(tinypy, ids)
    assert "".join(streamed) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in streamed)


@settings(max_examples=300)
@given(st.lists(st.integers(0, 300) | st.integers(0, 4200), max_size=40))
def test_any_tokens_stream_to_what_they_decode_to(tinypy: Tokenizer, ids: list[int]) -> None:
    """Ids up to 256 are mostly single bytes, those from 4096 don't exist, 0 is special."""
    assert "".join(pieces(tinypy, ids)) == tinypy.decode(ids)


@settings(max_examples=300)
@given(st.lists(st.integers(0, 270), max_size=30) | TEXT)
def test_any_tokens_stream_with_byte_fallback(
    sentencepiece: Tokenizer, ids: list[int] | str
) -> None:
    if isinstance(ids, str):
        ids = sentencepiece.encode(ids)
    assert "".join(pieces(sentencepiece, ids)) == sentencepiece.decode(ids)


@settings(max_examples=300)
@given(st.lists(st.sampled_from([0, 1, 2, *range(256, 268), 0xC3 + 3, 0xA9 + 3]), max_size=12))
def test_spaces_and_special_tokens_with_byte_fallback(
    sentencepiece: Tokenizer, ids: list[int]
) -> None:
    assert "".join(pieces(sentencepiece, ids)) == sentencepiece.decode(ids)


def test_characters_come_whole_and_at_once(tinypy: Tokenizer) -> None:
    ids = tinypy.encode(f"x{EMOJI}y")
    assert len(ids) == 5  # the emoji's four bytes are three tokens
    assert pieces(tinypy, ids) == ["x", "", "", EMOJI, "y", ""]


def test_text_before_an_incomplete_character_is_not_held_back(tinypy: Tokenizer) -> None:
    ids = tinypy.encode("ab\u00e9")
    assert "".join(pieces(tinypy, ids[:-1])[:-1]) == "ab"


def test_an_incomplete_character_at_the_end_shows_as_a_replacement(tinypy: Tokenizer) -> None:
    ids = tinypy.encode(f"x{EMOJI}")
    assert pieces(tinypy, ids[:-1]) == ["x", "", "", "\ufffd"]


def test_a_character_that_breaks_off_does_not_block(tinypy: Tokenizer) -> None:
    broken = [*tinypy.encode(EMOJI)[:1], *tinypy.encode("ab")]
    assert "".join(pieces(tinypy, broken)[:-1]) == "\ufffdab"


def test_the_first_space_is_stripped_only_at_the_front(sentencepiece: Tokenizer) -> None:
    ids = sentencepiece.encode("hi hi")
    assert pieces(sentencepiece, ids) == ["hi", " hi", ""]
    # Also when a token without text comes first.
    assert "".join(pieces(sentencepiece, [1, *ids, 2, *ids])) == "hi hi hi hi"


def test_bytes_wait_for_the_end_of_their_run(sentencepiece: Tokenizer) -> None:
    ids = sentencepiece.encode("hi\u20achi")
    parts = pieces(sentencepiece, ids)
    assert "".join(parts) == "hi\u20achi"
    assert all("\ufffd" not in part for part in parts)


def test_a_token_without_text_is_no_start_of_a_text() -> None:
    class Stripping:
        def decode(self, ids: Sequence[int]) -> str:
            return "".join((" a", "")[token] for token in ids).removeprefix(" ")

        def is_byte(self, token: int) -> bool:
            return False

        def is_silent(self, token: int) -> bool:
            return False

    stream = StreamDecoder(Stripping())
    assert [stream.push(token) for token in (0, 1, 0)] == ["a", "", " a"]


def test_long_streams_stay_fast(tinypy: Tokenizer) -> None:
    """The window is a few tokens long, whatever came before."""
    seen: list[int] = []

    class Counting:
        is_byte = tinypy.is_byte
        is_silent = tinypy.is_silent

        def decode(self, ids: Sequence[int]) -> str:
            seen.append(len(ids))
            return tinypy.decode(ids)

    stream = StreamDecoder(Counting())
    text = f"def f{EMOJI}():\n    pass\n" * 40
    assert "".join(stream.push(token) for token in tinypy.encode(text)) == text
    assert max(seen) <= 8


def test_special_ids_of_a_model_folder(tinypy: Tokenizer) -> None:
    assert (tinypy.bos_id, tinypy.eos_ids, tinypy.vocab_size) == (0, (0,), 4096)
    assert tinypy.encode("a", add_bos=True) == [0, *tinypy.encode("a")]
    assert tinypy.encode("") == []


def test_special_ids_of_an_artifact_come_from_its_chat_config(tmp_path: Path) -> None:
    shutil.copy(TINYPY / "tokenizer.json", tmp_path)
    shutil.copy(TINYPY / "generation_config.json", tmp_path)
    template = {"roles": {}, "seps": [""], "stop_token_ids": [5, 6]}
    config = {"bos_token_id": 4, "conv_template": template}
    (tmp_path / "mlc-chat-config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (4, (5, 6))


def test_a_bare_tokenizer_has_no_special_ids(tmp_path: Path) -> None:
    shutil.copy(TINYPY / "tokenizer.json", tmp_path)
    tokenizer = Tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (None, ())
    with pytest.raises(UsageError, match="no token that begins text"):
        tokenizer.encode("a", add_bos=True)


def test_nothing_is_added_cut_or_padded(tmp_path: Path) -> None:
    content = json.loads((TINYPY / "tokenizer.json").read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    text = "import os\n" * 3
    assert Tokenizer(tmp_path).encode(text) == Tokenizer(TINYPY).encode(text)


def test_half_a_surrogate_pair(tinypy: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"character 2 .* lone surrogate \(U\+DCFF\)"):
        tinypy.encode("ab\udcff")


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: there is no such file"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"{", b"\xff\xfe", b'{"model": 3}'])
def test_a_damaged_tokenizer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: is not a tokenizer"):
        Tokenizer(tmp_path)
