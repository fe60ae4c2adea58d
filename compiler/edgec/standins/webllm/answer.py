"""What WebLLM answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Answer:
    """One answer to one request.

    Attributes:
        text: that was generated.
        token_ids: that it was decoded from, without the token that ended it.
        prompt_ids: of the prompt; empty for chats, whose template WebLLM fills in itself.
        finish_reason: ``"stop"`` or ``"length"``.
        usage: WebLLM's own counts and times: ``prompt_tokens``, ``completion_tokens``, and under
            ``extra`` ``prefill_tokens_per_s``, ``decode_tokens_per_s``, ....
        logprobs: by token, in the form of OpenAI's; empty if they weren't asked for.
        pieces: the text as it was streamed; one piece if it wasn't.
        seconds: from the request to its end, seen from the page.
        first_piece_seconds: to the first piece.
        messages: that the page wrote to its console meanwhile, as ``"warning: ..."``.
    """

    text: str
    token_ids: Sequence[int]
    prompt_ids: Sequence[int]
    finish_reason: str
    usage: Mapping[str, Any]
    logprobs: Sequence[Mapping[str, Any]]
    pieces: Sequence[str]
    seconds: float
    first_piece_seconds: float
    messages: Sequence[str]
