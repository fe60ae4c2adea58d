"""SentencePiece vocabularies of GGUF files against the algorithm, and against transformers' tokenizer."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.checkpoints.gguf.sentencepiece import sentencepiece
from edgec.checkpoints.gguf.tokenizer import write_tokenizer
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog; then it sleeps.",
    "  two spaces,   three,\ttab\nnewline\r\n ",
    "def f(x):\n    return {x: [1, 22, 333]}  # comment",
    "naïve café, 日本語, \u2581 and \U0001f600!",
    "",
    " ",
    "aaaa aaaaaaa ababab",
)
CORPUS = " ".join(TEXTS[:4]) * 3
_FIRST = ["<unk>", "<s>", "</s>"]
_BYTES = [f"<0x{number:02X}>" for number in range(256)]


def vocabulary(corpus: str, merges: int, *extra: tuple[str, int]) -> dict[str, Any]:
    """Metadata of a vocabulary as SentencePiece trains it: pairs that are frequent become pieces."""
    words = [list(f"\u2581{word}") for word in corpus.split()]
    characters = sorted({character for word in words for character in word})
    pieces: list[str] = []
    for _ in range(merges):
        pairs: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in pairwise(word):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if "".join(best) not in (*pieces, *(name for name, _ in extra)):
            pieces.append("".join(best))
        words = [_joined(word, best) for word in words]
    tokens = [*_FIRST, *_BYTES, *(name for name, _ in extra), *pieces, *characters]
    kinds = [2, 3, 3, *[6] * 256, *(kind for _, kind in extra)]
    scores = [0.0] * len(kinds) + [-float(index) for index in range(len(pieces) + len(characters))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(kinds + [1] * (len(tokens) - len(kinds)), np.int32),
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for piece in word:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return result


def encoded(metadata: dict[str, Any], text: str) -> list[int]:
    """Ids by the algorithm: the neighbours of the highest score are joined, the leftmost first."""
    tokens = metadata["tokenizer.ggml.tokens"]
    types, scores = metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.scores"]
    ids = {token: number for number, token in enumerate(tokens)}
    usable = {token for token, kind in zip(tokens, types, strict=True) if kind == 1}
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaced = (" " + text if prefix and text else text).replace(" ", "\u2581")
    pieces = list(spaced)
    while True:
        joints = [
            (-scores[ids[left + right]], place)
            for place, (left, right) in enumerate(pairwise(pieces))
            if left + right in usable and left in usable and right in usable
        ]
        if not joints:
            break
        place = min(joints)[1]
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    found: list[int] = []
    for piece in pieces:
        found += [ids[piece]] if piece in usable else [ids[_BYTES[n]] for n in piece.encode()]
    return found


def made(metadata: dict[str, Any], folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer  # noqa: PLC0415

    names = write_tokenizer(metadata, folder, "a.gguf")
    assert names == ["tokenizer.json", "tokenizer_config.json"]
    found: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return found


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_are_those_of_the_algorithm(tmp_path: Path, prefix: bool) -> None:
    metadata = vocabulary(CORPUS, 120) | {"tokenizer.ggml.add_space_prefix": prefix}
    tokenizer = made(metadata, tmp_path)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == encoded(metadata, text), text
        assert tokenizer.encode(text).ids == [1, *ids]
        assert tokenizer.decode(ids) == text.replace("\u2581", " "), text


@given(text=st.text(st.sampled_from("ab c\u00e9\n"), max_size=40), seed=st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_ids_of_any_text_are_those_of_the_algorithm(text: str, seed: int) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    letters = np.random.default_rng(seed).choice(list("aabbc "), 200)
    metadata = vocabulary("".join(letters), 25)
    content = sentencepiece(
        metadata,
        metadata["tokenizer.ggml.tokens"],
        metadata["tokenizer.ggml.token_type"],
        "llama",
    )
    found = Tokenizer.from_str(json.dumps(content)).encode(text, add_special_tokens=False).ids
    assert found == encoded(metadata, text)


def test_ids_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import LlamaTokenizer  # noqa: PLC0415
    from transformers.convert_slow_tokenizer import generate_merges  # noqa: PLC0415

    metadata = vocabulary(CORPUS, 120)
    tokenizer = made(metadata, tmp_path)
    vocab = {token: number for number, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    scores = list(zip(vocab, metadata["tokenizer.ggml.scores"].tolist(), strict=True))
    merges = generate_merges(vocab, scores, skip_tokens=[*_FIRST, *_BYTES])
    reference = LlamaTokenizer(vocab=vocab, merges=merges, legacy=True)
    # Its newer form puts no space before one; the published files and SentencePiece do.
    for text in (text for text in TEXTS if not text.startswith(" ")):
        ids = reference.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text


def test_defined_tokens_are_found_first(tmp_path: Path) -> None:
    extra = (("<turn>", 3), ("\n\n", 4), ("\u2581\u2581", 4), ("\u2581\u2581\u2581", 4))
    metadata = vocabulary(CORPUS, 120, *extra) | {"tokenizer.ggml.add_space_prefix": False}
    tokenizer = made(metadata, tmp_path)
    ids = {token: tokenizer.token_to_id(token) for token, _ in extra}
    assert list(ids.values()) == [259, 260, 261, 262]
    three, two = ids["\u2581\u2581\u2581"], ids["\u2581\u2581"]
    found = tokenizer.encode("<turn>     \n\n\n", add_special_tokens=False).ids
    assert found == [ids["<turn>"], three, two, ids["\n\n"], tokenizer.token_to_id("<0x0A>")]
    assert tokenizer.decode([two, ids["\n\n"]]) == "  \n\n"


def test_tokens_of_phi_3_swallow_spaces(tmp_path: Path) -> None:
    extra = (("<|user|>", 3), ("<|endoftext|>", 3))
    metadata = vocabulary(CORPUS, 120, *extra)
    found = []
    for name in ("phi3", "llama"):
        tokenizer = made({**metadata, "general.architecture": name}, tmp_path)
        ids = tokenizer.encode("<|user|>\nThe<|endoftext|> dog", add_special_tokens=False).ids
        found.append([tokenizer.id_to_token(number) for number in ids])
    assert found[0][:2] == ["<|user|>", "\u2581The"]
    assert found[1][:3] == ["<|user|>", "\u2581", "<0x0A>"]
    assert found[0][-3:] == found[1][-3:]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"scores": None}, "a score"),
        ({"scores": np.zeros(3, np.float32)}, "a score"),
        ({"scores": np.full(500, np.nan, np.float32)}, "score"),
        ({"remove_extra_whitespaces": True}, "changes the text"),
        ({"precompiled_charsmap": np.ones(8, np.uint8)}, "changes the text"),
        ({"tokens": "lacks"}, "lacks <0x07>"),
        ({"tokens": "long"}, "a piece of 65 characters"),
        ({"tokens": "spaced"}, "with its spaces"),
        ({"tokens": "twice"}, "a token twice"),
        ({"token_type": np.ones(5, np.int32)}, "each token a type"),
        ({"bos_token_id": 1 << 20}, "no token"),
    ],
)
def test_what_isnt_exact_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    extra = {"spaced": [("\u2581x\u2581", 4)]}.get(change.get("tokens", ""), [])
    metadata = vocabulary(CORPUS, 20, *extra)
    tokens = metadata["tokenizer.ggml.tokens"]
    wrong = {
        "lacks": lambda: tokens.__setitem__(tokens.index("<0x07>"), "seven"),
        "long": lambda: tokens.__setitem__(-1, "x" * 65),
        "twice": lambda: tokens.__setitem__(-1, "<s>"),
        "spaced": lambda: None,
    }
    if "tokens" in change:
        wrong[change["tokens"]]()
    else:
        metadata |= {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.raises(CheckpointError, match=what) as caught:
        write_tokenizer(metadata, tmp_path, "a.gguf")
    assert "beside the file" in str(caught.value)
    assert not list(tmp_path.iterdir())
