"""From a SentencePiece vocabulary in a GGUF file (``tokenizer.ggml.model: llama``) to a BPE model.

SentencePiece's BPE joins, again and again, the two neighbours whose joint piece has the highest score,
the leftmost of equals. Merges in the order of the scores of what they make do the same. Characters
without a piece become bytes. Spaces are the character U+2581, and one may be put before the text.

Some conversions know more than the file says: Phi-3's special tokens swallow the spaces behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.gguf.values import show

if TYPE_CHECKING:
    from collections.abc import Mapping

SPACE = "\u2581"

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens."""

_BYTES = [f"<0x{number:02X}>" for number in range(256)]
# Trainers allow 16 characters, or little more; every place in a piece is tried.
_LONGEST = 64
_KEEPS_SPACES = frozenset({"<unk>", "<s>", "<|endoftext|>"})
_SWALLOWS_SPACES = "</s>"


class NotExactError(Exception):
    """A vocabulary that no ``tokenizer.json`` stands for exactly; the text says why."""


def sentencepiece(
    metadata: Mapping[str, Any], tokens: list[str], types: Any, architecture: object
) -> dict[str, Any]:
    """The content of ``tokenizer.json``, without a post-processor.

    Args:
        metadata: of the file.
        tokens: by their ids.
        types: of the tokens, ``(n,)``.
        architecture: ``general.architecture``.

    Raises:
        NotExactError: scores are missing, or text would be normalized.
    """
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or scores.shape != (len(tokens),):
        raise NotExactError("tokenizer.ggml.scores doesn't give each token a score")
    if not np.isfinite(scores).all():
        raise NotExactError("tokenizer.ggml.scores holds numbers that aren't finite")
    for key in ("precompiled_charsmap", "remove_extra_whitespaces"):
        value = metadata.get(f"tokenizer.ggml.{key}")
        if (value.size if isinstance(value, np.ndarray) else value) not in (None, False, 0):
            raise NotExactError(f"tokenizer.ggml.{key} changes the text")
    missing = [token for token in _BYTES if token not in set(tokens)]
    if missing and len(missing) < len(_BYTES):
        raise NotExactError(f"tokenizer.ggml.tokens lacks {missing[0]}")
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True) is True
    _check_pieces(tokens, types, prefix=prefix)
    unknown = [tokens[number] for number in np.flatnonzero(types == UNKNOWN)]
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepended = {"type": "Prepend", "prepend": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    stripped = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, types, prefix=prefix, phi3=architecture == "phi3"),
        "normalizer": (
            {"type": "Sequence", "normalizers": [prepended, replaced]} if prefix else replaced
        ),
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *stripped],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown[0] if unknown else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": not missing,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": _merges(tokens, types, scores),
        },
    }


def _check_pieces(tokens: list[str], types: Any, *, prefix: bool) -> None:
    longest = max((len(tokens[n]) for n in np.flatnonzero(types == NORMAL).tolist()), default=0)
    if longest > _LONGEST:
        raise NotExactError(f"tokenizer.ggml.tokens has a piece of {longest:,} characters")
    defined = (tokens[number] for number in np.flatnonzero(types == USER_DEFINED).tolist())
    spaced = next((token for token in defined if SPACE in token), None)
    if prefix and spaced is not None:
        raise NotExactError(
            f"tokenizer.ggml.tokens has {show(spaced)}, which is found in the text with its spaces"
        )


def _merges(tokens: list[str], types: Any, scores: Any) -> list[list[str]]:
    """Every way to join two pieces to a third, those of the highest scores first."""
    pieces = {tokens[number]: number for number in np.flatnonzero(types == NORMAL).tolist()}
    found = []
    for piece, number in pieces.items():
        for place in range(1, len(piece)):
            left, right = pieces.get(piece[:place]), pieces.get(piece[place:])
            if left is not None and right is not None:
                found.append((-float(scores[number]), number, left, right))
    return [[tokens[left], tokens[right]] for _, _, left, right in sorted(found)]


def _added(tokens: list[str], types: Any, *, prefix: bool, phi3: bool) -> list[dict[str, Any]]:
    """Tokens that are found in the text before anything is joined.

    Those that the vocabulary's maker defined are found in the normalized text, unless a space would
    be put before each of them as well.
    """
    chosen = np.flatnonzero((types == CONTROL) | (types == UNKNOWN) | (types == USER_DEFINED))
    return [
        {
            "id": number,
            "content": tokens[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": phi3 and _swallows(tokens[number], special=bool(types[number] == CONTROL)),
            "normalized": bool(types[number] == USER_DEFINED) and not prefix,
            "special": bool(types[number] != USER_DEFINED),
        }
        for number in chosen.tolist()
    ]


def _swallows(token: str, *, special: bool) -> bool:
    """Whether one of Phi-3's tokens swallows the spaces behind it."""
    return token == _SWALLOWS_SPACES or (special and token not in _KEEPS_SPACES)
