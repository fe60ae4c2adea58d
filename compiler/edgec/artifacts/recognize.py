"""Which chat format a tokenizer wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec import suggest
from edgec.artifacts.conversation import (
    COMPLETION,
    ConversationTemplate,
    list_templates,
    load_template,
)
from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.artifacts.tokenizer_files import TokenizerFiles


def recognize_template(files: TokenizerFiles) -> str:
    """The name of the template that means the same as the tokenizer's own chat template.

    A tokenizer without one belongs to a base model: ``completion``. Among several that fit, the
    one that asks for most wins.

    Raises:
        UsageError: the tokenizer's chat template is of a kind that isn't known.
    """
    if files.chat_template is None:
        return COMPLETION
    fitting = []
    for name in list_templates():
        template = load_template(name)
        if template.recognize.matches(files.chat_template) and not missing_tokens(template, files):
            fitting.append((len(template.recognize.has), name))
    if not fitting:
        raise UsageError(
            "the tokenizer's own chat template isn't one that edgec knows",
            where="chat.template",
            remedy=f"name one ({suggest.listing(list_templates(), last='or')});"
            f" {COMPLETION} builds the model without a chat format",
        )
    return max(fitting)[1]


def check_tokens(name: str, template: ConversationTemplate, files: TokenizerFiles) -> None:
    """Refuse a template for a tokenizer that would read its markers as common text.

    Raises:
        UsageError: the tokenizer lacks tokens that the template is made of.
    """
    missing = missing_tokens(template, files)
    if missing:
        raise UsageError(
            f"{name} is made of tokens that the tokenizer doesn't have: {', '.join(missing)}",
            where="chat.template",
            remedy="leave it out to have it recognized, or name the format that the model was"
            " trained with",
        )


def missing_tokens(template: ConversationTemplate, files: TokenizerFiles) -> list[str]:
    """The tokens that a template is made of and the tokenizer doesn't have."""
    return [token for token in template.tokens if files.token_id(token) is None]
