"""From the tokenizer in a GGUF file's metadata to Hugging Face's files, where that is exact.

That is the case for byte-level BPE (``tokenizer.ggml.model: gpt2``) with a pre-tokenizer of known
rules, and for SentencePiece's BPE (``llama``), see :mod:`edgec.checkpoints.gguf.sentencepiece`. Other
kinds and unknown pre-tokenizers are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.gguf.sentencepiece import (
    CONTROL,
    USER_DEFINED,
    NotExactError,
    sentencepiece,
)
from edgec.checkpoints.gguf.values import show
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BESIDE = "put the tokenizer.json and tokenizer_config.json of the model beside the file"


def _words(digits: str) -> str:
    """The pattern of words of Qwen 2 and Llama 3, which differ in how many digits go together."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
# Of o200k, the vocabulary of GPT-4o, Phi-4-mini and others: capitals begin a word.
_CASED_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_SUFFIX}|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_SUFFIX}|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _PreTokenizer:
    """What ``tokenizer.ggml.pre`` stands for.

    Attributes:
        steps: before bytes become letters.
        byte_regex: whether the byte-level step splits words by GPT-2's rule.
        composed: whether text is normalized to composed characters (NFC).
        whole_words: whether a word that is a token is never split.
    """

    steps: tuple[Mapping[str, Any], ...] = ()
    byte_regex: bool = True
    composed: bool = False
    whole_words: bool = False


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


_PRE: Mapping[str, _PreTokenizer] = MappingProxyType(
    {
        "gpt-2": _PreTokenizer(),
        "smollm": _PreTokenizer(({"type": "Digits", "individual_digits": True},)),
        "qwen2": _PreTokenizer((_split(_words(r"\p{N}")),), byte_regex=False, composed=True),
        "llama-bpe": _PreTokenizer(
            (_split(_words(r"\p{N}{1,3}")),), byte_regex=False, whole_words=True
        ),
        "phi-2": _PreTokenizer(),
        "gpt-4o": _PreTokenizer((_split(_CASED_WORDS),), byte_regex=False),
    }
)


def write_tokenizer(metadata: Mapping[str, Any], folder: Path, where: str) -> list[str]:
    """Write what :func:`tokenizer_contents` gives into a folder; returns the files' names."""
    contents = tokenizer_contents(metadata, where)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return list(contents)


def tokenizer_contents(metadata: Mapping[str, Any], where: str) -> dict[str, bytes]:
    """Make ``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        metadata: of the file.
        where: the GGUF file's name for error messages.

    Returns:
        The files' contents by their names; none for a file without a tokenizer.

    Raises:
        CheckpointError: the tokenizer is damaged, or of a kind that can't be made exactly.
    """
    kind = metadata.get("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return {}
    pre = metadata.get("tokenizer.ggml.pre")
    rules = _PRE.get(pre) if isinstance(pre, str) else None
    if kind != "llama" and (kind != "gpt2" or rules is None):
        raise CheckpointError(
            f"its tokenizer ({show(kind)}, pre-tokenizer {show(pre)}) can't be turned into a "
            "tokenizer.json exactly",
            where=where,
            remedy=_BESIDE,
        )
    tokens = _texts(metadata, "tokens", where)
    if len(set(tokens)) != len(tokens):
        raise _damaged("tokenizer.ggml.tokens has a token twice", where)
    types = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, np.ndarray) or len(types) != len(tokens):
        raise _damaged("tokenizer.ggml.token_type doesn't give each token a type", where)
    if kind == "llama":
        tokenizer = _sentencepiece(metadata, tokens, types, where)
    else:
        assert rules is not None
        tokenizer = _tokenizer(rules, tokens, _texts(metadata, "merges", where), types, where)
    config = _config(metadata, tokens, where)
    if config["add_bos_token"]:
        tokenizer["post_processor"] = _with_start(config, tokens)
    return {
        name: json.dumps(content, ensure_ascii=False, indent=1).encode()
        for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config))
    }


def _sentencepiece(
    metadata: Mapping[str, Any], tokens: list[str], types: Any, where: str
) -> dict[str, Any]:
    try:
        return sentencepiece(metadata, tokens, types, metadata.get("general.architecture"))
    except NotExactError as error:
        raise _damaged(str(error), where) from error


def _tokenizer(
    rules: _PreTokenizer, tokens: list[str], merges: list[str], types: Any, where: str
) -> dict[str, Any]:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = []
    for merge in merges:
        pair = merge.split(" ")
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            raise _damaged(f"tokenizer.ggml.merges has {show(merge)}, which joins no tokens", where)
        pairs.append(pair)
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": rules.byte_regex,
    }
    steps = [*map(dict, rules.steps), byte_level]
    added = [
        {
            "id": number,
            "content": tokens[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": bool(types[number] == CONTROL),
        }
        for number in np.flatnonzero((types == CONTROL) | (types == USER_DEFINED)).tolist()
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if rules.composed else None,
        "pre_tokenizer": steps[0]
        if len(steps) == 1
        else {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rules.whole_words,
            "vocab": vocabulary,
            "merges": pairs,
        },
    }


def _config(metadata: Mapping[str, Any], tokens: list[str], where: str) -> dict[str, Any]:
    # What llama.cpp does where the file says nothing.
    spm = metadata.get("tokenizer.ggml.model") == "llama"
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": metadata.get("tokenizer.ggml.add_bos_token", spm) is True,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is None:
            continue
        if type(number) is not int or not 0 <= number < len(tokens):
            raise _damaged(f"tokenizer.ggml.{key}_token_id is {show(number)}, no token", where)
        config[f"{name}_token"] = tokens[number]
    if config["add_bos_token"] and "bos_token" not in config:
        raise _damaged("tokenizer.ggml.bos_token_id is missing", where)
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config


def _with_start(config: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    """Puts the token of the start before a text, and before the second of a pair."""
    start = config["bos_token"]
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    special = {"SpecialToken": {"id": start, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, special, second],
        "special_tokens": {start: {"id": start, "ids": [tokens.index(start)], "tokens": [start]}},
    }


def _texts(metadata: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list):
        raise _damaged(f"tokenizer.ggml.{key} is not a list of texts", where)
    return value


def _damaged(what: str, where: str) -> CheckpointError:
    return CheckpointError(f"its metadata {what}", where=where, remedy=_BESIDE)
