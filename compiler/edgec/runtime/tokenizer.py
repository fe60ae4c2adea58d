"""Text to token ids and back, also token by token as a model writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

import tokenizers

from edgec.artifacts.conversation import Conversation
from edgec.artifacts.layout import CHAT_CONFIG
from edgec.artifacts.special_ids import special_ids
from edgec.artifacts.tokenizer_files import GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG
from edgec.checkpoints.json_file import read_json_object
from edgec.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_REPLACEMENT = "\ufffd"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """A tokenizer with the ids that begin and end text.

    Args:
        folder: of an artifact's model, or of a model in Hugging Face format; it holds
            ``tokenizer.json``. The special ids come from the artifact's chat config, else from
            the model's configs.

    Attributes:
        bos_id: begins text, if there is such a token.
        eos_ids: each of them ends text.

    Raises:
        CheckpointError: ``tokenizer.json`` is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._where = str(folder / TOKENIZER)
        self._tokenizer = _load(folder / TOKENIZER)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token for token, entry in added.items() if entry.special)
        self.bos_id, self.eos_ids = _special_ids(folder, self._tokenizer)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are; a model's vocabulary may be padded to more."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, add_bos: bool = False) -> list[int]:
        """The ids of ``text``. Special tokens in it count as such; none are added around it.

        Args:
            text: any text that is valid Unicode.
            add_bos: put the token that begins text in front.

        Raises:
            UsageError: the text holds half a surrogate pair, or there is no such token.
        """
        if found := _SURROGATE.search(text):
            raise UsageError(
                f"character {found.start()} of the text is a lone surrogate"
                f" (U+{ord(found.group()):04X})",
                remedy="give the text as valid UTF-8",
            )
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not add_bos:
            return ids
        if self.bos_id is None:
            raise UsageError(
                "the tokenizer has no token that begins text",
                where=self._where,
                remedy="encode without it",
            )
        return [self.bos_id, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens; bytes that aren't UTF-8 become U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def name(self, token: int) -> str | None:
        """What a token is called, such as ``<|im_end|>``; None if there is none of this id."""
        name: str | None = self._tokenizer.id_to_token(token)
        return name

    def is_byte(self, token: int) -> bool:
        """Whether a token stands for one byte, as ``<0x0A>`` does."""
        name = self._tokenizer.id_to_token(token)
        return name is not None and _BYTE.fullmatch(name) is not None

    def is_silent(self, token: int) -> bool:
        """Whether :meth:`decode` passes over a token: a special one, or none of the vocabulary."""
        return token in self._special or self._tokenizer.id_to_token(token) is None


class Decoder(Protocol):
    """What :class:`StreamDecoder` needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""

    def is_byte(self, token: int) -> bool:
        """Whether a token stands for one byte, as ``<0x0A>`` does."""

    def is_silent(self, token: int) -> bool:
        """Whether ``decode`` passes over a token."""


class StreamDecoder:
    """Decodes tokens one by one: the pieces together are ``decode`` of all tokens.

    How a token reads depends on its neighbours: bytes of one character can lie in several tokens,
    and some tokenizers treat the first word of a text differently. So a window of tokens is
    decoded, and of its text what is new is given out. The front of the window has been given out
    before; it is there as a neighbour.

    A character whose bytes aren't complete shows as one U+FFFD at the end, and is held back. A
    run of byte tokens is held back whole, since decoders judge such a run as one.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._front = 0  # tokens of the window that are only neighbours
        self._front_length = 0  # characters of their text
        self._given = 0  # characters of the window's text that were given out

    def push(self, token: int) -> str:
        """The text that became certain with ``token``; may be empty."""
        if self._tokenizer.is_silent(token):
            return ""
        self._window.append(token)
        if self._tokenizer.is_byte(token):
            return ""
        text = self._tokenizer.decode(self._window)
        complete = not text.endswith(_REPLACEMENT)
        piece = self._give(text if complete else text[:-1])
        # Tokens without text are no neighbours: a decoder may take them for the start of a text.
        if complete and len(text) > self._front_length:
            del self._window[: self._front]
            self._front = len(self._window)
            self._front_length = self._given = len(self._tokenizer.decode(self._window))
        return piece

    def finish(self) -> str:
        """What was held back; to be called once, after the last token."""
        return self._give(self._tokenizer.decode(self._window))

    def _give(self, text: str) -> str:
        piece = text[self._given :]
        self._given = max(self._given, len(text))
        return piece


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(
            "there is no such file, and without it text can't become tokens",
            where=str(path),
            remedy="give the model a tokenizer in Hugging Face format and build it again",
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise CheckpointError(
            f"is not a tokenizer ({error})", where=str(path), remedy="restore the file"
        ) from error
    # Settings of training that a file can carry; they would cut text or fill it up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_ids(folder: Path, tokenizer: Any) -> tuple[int | None, tuple[int, ...]]:
    if (folder / CHAT_CONFIG).is_file():
        path = folder / CHAT_CONFIG
        config = read_json_object(path, missing="")
        conversation = Conversation.from_chat_config(config, str(path))
        bos = config.get("bos_token_id")
        return bos if isinstance(bos, int) else None, conversation.stop_token_ids
    contents = [
        read_json_object(folder / name, missing="") if (folder / name).is_file() else {}
        for name in ("config.json", GENERATION_CONFIG, TOKENIZER_CONFIG)
    ]
    special = special_ids(contents[0], contents[1], contents[2], tokenizer.token_to_id)
    return special.bos, special.eos
