"""Ids of the tokens that begin and end text, from the files in which models state them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgec.artifacts.tokenizer_files import TokenizerFiles

# Their tokenizers put the first token in front unless their config says otherwise.
_BEGINNING_CLASSES = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")


@dataclass(frozen=True)
class SpecialIds:
    """Ids of special tokens.

    Attributes:
        bos: begins text, if there is such a token.
        eos: each of them ends text; the first is the usual one.
        pad: fills up batches, if there is such a token.
    """

    bos: int | None
    eos: tuple[int, ...]
    pad: int | None


def special_ids(
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
    token_id: Callable[[str], int | None],
) -> SpecialIds:
    """Read them from a model's files, in the order in which generation gives them weight.

    Args:
        config: content of ``config.json``.
        generation_config: content of ``generation_config.json``, empty if there is none.
        tokenizer_config: content of ``tokenizer_config.json``, empty if there is none.
        token_id: the id of a token by its text.

    Raises:
        CheckpointError: an id isn't a whole number.
    """

    def find(kind: str) -> tuple[int, ...]:
        field = f"{kind}_token_id"
        stated = _ids(generation_config, field, "generation_config.json")
        stated = stated or _ids(config, field, "config.json")
        token = _text(tokenizer_config.get(f"{kind}_token"))
        named = None if stated or token is None else token_id(token)
        return stated if named is None else (named,)

    bos, pad = find("bos"), find("pad")
    return SpecialIds(bos=bos[0] if bos else None, eos=find("eos"), pad=pad[0] if pad else None)


def prefix_ids(files: TokenizerFiles, special: SpecialIds, *, chat: bool) -> tuple[int, ...]:
    """The tokens that stand before every prompt.

    Args:
        files: the tokenizer.
        special: its special ids.
        chat: whether prompts are chats, for which the tokenizer's own chat template decides.

    Raises:
        CheckpointError: the tokenizer wants a token that it doesn't have.
    """
    if chat and files.chat_template is not None:
        return _checked(special) if "bos_token" in files.chat_template else ()
    wanted = files.config.get("add_bos_token")
    if isinstance(wanted, bool):
        return _checked(special) if wanted else ()
    leading = _leading_ids(files.tokenizer.get("post_processor"))
    if leading:
        return leading
    name = str(files.config.get("tokenizer_class") or "").removesuffix("Fast")
    if name in _BEGINNING_CLASSES and special.bos is not None:
        return (special.bos,)
    return ()


def _checked(special: SpecialIds) -> tuple[int, ...]:
    if special.bos is None:
        raise CheckpointError(
            "prompts are to begin with the bos_token, and no file says which token that is",
            where="tokenizer_config.json",
            remedy="add bos_token to it, or bos_token_id to config.json",
        )
    return (special.bos,)


def _leading_ids(post_processor: Any) -> tuple[int, ...]:
    """The special tokens that a post-processor puts before a single text."""
    if not isinstance(post_processor, dict):
        return ()
    if post_processor.get("type") == "Sequence":
        parts = [_leading_ids(part) for part in post_processor.get("processors") or ()]
        return next((part for part in parts if part), ())
    if post_processor.get("type") != "TemplateProcessing":
        return ()
    tokens = post_processor.get("special_tokens") or {}
    found: list[int] = []
    for piece in post_processor.get("single") or ():
        if "SpecialToken" not in piece:
            break
        found += tokens[piece["SpecialToken"]["id"]]["ids"]
    return tuple(found)


def _ids(content: Mapping[str, Any], field: str, file: str) -> tuple[int, ...]:
    """One id or a list of them. Negative ids are how some models say that there is none."""
    value = content.get(field)
    values = value if isinstance(value, list) else [] if value is None else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, int):
            raise CheckpointError(
                f"{field}: {item!r} is not a token id",
                where=file,
                remedy="take the file from the model's original repository",
            )
    return tuple(dict.fromkeys(item for item in values if item >= 0))


def _text(token: Any) -> str | None:
    """The text of a token, which older files write as an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
