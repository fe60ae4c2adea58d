"""A conversation of several turns with one model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgec.artifacts.conversation import COMPLETION
from edgec.errors import UsageError
from edgec.runtime.generate import generate
from edgec.runtime.prompt import ASSISTANT, USER, Message, chat_prompt
from edgec.runtime.reuse import ReusedSequence

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from edgec.artifacts.conversation import Conversation
    from edgec.runtime.generate import Token
    from edgec.runtime.pictures import Pictures
    from edgec.runtime.reuse import ReusableEngine
    from edgec.runtime.sampling import SamplingOptions
    from edgec.runtime.speculative import Speculation
    from edgec.runtime.tokenizer import Tokenizer


class Chat:
    """Remembers what was said, in words and in the KV cache.

    Args:
        engine: with room for one sequence, and none alive.
        tokenizer: of the model.
        conversation: the model's chat format.
        options: how tokens are chosen.
        max_tokens: most tokens of an answer; None for as many as fit into the context, if it ends.
        pictures: in front of the first message.
        speculation: to guess tokens and compute several at a time.

    Attributes:
        messages: both sides' messages so far.
    """

    def __init__(
        self,
        engine: ReusableEngine,
        tokenizer: Tokenizer,
        conversation: Conversation,
        options: SamplingOptions,
        max_tokens: int | None = None,
        pictures: Pictures | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        self._engine = ReusedSequence(engine)
        self._tokenizer = tokenizer
        self._conversation = conversation
        self._options = options
        self._max_tokens = max_tokens
        self._pictures = pictures
        self._speculation = speculation
        self.messages: list[Message] = []

    def clear(self) -> None:
        """Begin a new conversation."""
        self.messages = []
        self._engine.clear()

    def answer(self, text: str) -> Generator[Token, None, None]:
        """Answer a message.

        What was generated becomes part of the conversation, also if the caller stops early and
        closes the iterator. If nothing was, the message is forgotten too.

        Args:
            text: what the user says.

        Returns:
            One item for each token, and a last one with the statistics: its ``prompt_tokens`` are
            those of the whole conversation, its ``prefill_rate`` counts only what was computed.

        Raises:
            UsageError: the conversation has become longer than the context.
        """
        if self._pictures is not None and not self.messages:
            text = self._pictures.prefix + text
        messages = [*self.messages, Message(USER, text)]
        ids = chat_prompt(self._tokenizer, self._conversation, messages)
        steps = generate(
            self._engine,
            self._tokenizer,
            ids if self._pictures is None else self._pictures.put(ids),
            self._options,
            max_tokens=self._max_tokens,
            stop_ids=self._conversation.stop_token_ids,
            stop_strings=self._conversation.stop_str,
            speculation=self._speculation,
        )
        return self._remembered(messages, steps)

    def _remembered(
        self, messages: list[Message], steps: Iterator[Token]
    ) -> Generator[Token, None, None]:
        said: list[str] = []
        try:
            for step in steps:
                said.append(step.text)
                if step.stats is None:
                    yield step
                else:
                    share = self._engine.prefilled / step.stats.prompt_tokens
                    rate = step.stats.prefill_rate * share
                    yield replace(step, stats=replace(step.stats, prefill_rate=rate))
        finally:
            if said:
                self.messages = [*messages, Message(ASSISTANT, "".join(said))]


def require_chat(conversation: Conversation, where: str) -> None:
    """Refuse to chat with a model that only continues text.

    Args:
        conversation: the model's chat format.
        where: the artifact, for messages.

    Raises:
        UsageError: it has none.
    """
    if conversation.name == COMPLETION:
        raise UsageError(
            "this model continues text and knows no chat format",
            where=where,
            remedy="give it a text to continue, without --chat",
        )
