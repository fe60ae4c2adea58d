"""From messages, or plain text, to the tokens of a prompt, as the MLC engines do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec import suggest
from edgec.artifacts.conversation import (
    FUNCTION_PLACEHOLDER,
    SYSTEM_PLACEHOLDER,
    Conversation,
    role_placeholder,
)
from edgec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.runtime.tokenizer import Tokenizer

SYSTEM = "system"
USER = "user"
ASSISTANT = "assistant"
_END_OF_THOUGHTS = "</think>"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or another that the format knows.
        content: what was said.
    """

    role: str
    content: str


def chat_prompt(
    tokenizer: Tokenizer, conversation: Conversation, messages: Sequence[Message]
) -> list[int]:
    """The tokens of a conversation, up to where the assistant speaks next.

    Raises:
        UsageError: the format doesn't know a role.
    """
    return completion_prompt(tokenizer, conversation, render(conversation, messages))


def completion_prompt(tokenizer: Tokenizer, conversation: Conversation, text: str) -> list[int]:
    """The tokens of text that the model is to continue.

    Raises:
        UsageError: the text isn't valid Unicode.
    """
    return [*(conversation.system_prefix_token_ids or ()), *tokenizer.encode(text)]


def render(conversation: Conversation, messages: Sequence[Message]) -> str:
    """The text of a conversation, up to where the assistant speaks next.

    System messages stand in front wherever they come; they replace the format's own.

    Raises:
        UsageError: the format doesn't know a role.
    """
    history = [Message(role, content or "") for role, content in conversation.messages]
    every = [*history, *messages]
    system = [message.content for message in every if message.role == SYSTEM]
    turns = [message for message in every if message.role != SYSTEM]
    text = _system_text(conversation, "".join(system) if system else conversation.system_message)
    begun = bool(text) and not conversation.add_role_after_system_message
    for index, message in enumerate(turns):
        if index or not begun:
            text += _role(conversation, message.role) + conversation.role_content_sep
        text += _content(conversation, message) + _separator(conversation, message.role)
    return text + _role(conversation, ASSISTANT) + conversation.role_empty_sep


def _system_text(conversation: Conversation, message: str) -> str:
    if not message and not conversation.render_empty_system_message:
        return ""
    return conversation.system_template.replace(SYSTEM_PLACEHOLDER, message, 1)


def _content(conversation: Conversation, message: Message) -> str:
    content = message.content
    if message.role == ASSISTANT and conversation.strip_reasoning_in_history:
        _thoughts, found, answer = content.rpartition(_END_OF_THOUGHTS)
        content = answer.lstrip("\n") if found else content
    placeholder = role_placeholder(message.role)
    template = conversation.role_templates.get(message.role, placeholder)
    # Before the content comes in, so that the same words in it stay as they are.
    template = template.replace(FUNCTION_PLACEHOLDER, conversation.function_string)
    return template.replace(placeholder, content, 1)


def _separator(conversation: Conversation, role: str) -> str:
    return conversation.seps[-1 if role == ASSISTANT else 0]


def _role(conversation: Conversation, role: str) -> str:
    if role not in conversation.roles:
        raise UsageError(
            f"the chat format {conversation.name or ''} has no role {role[:80]!r}",
            remedy=suggest.instead_of(role, [SYSTEM, *conversation.roles], noun="roles"),
        )
    return conversation.roles[role]
