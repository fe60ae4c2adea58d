"""Chat formats: the form that engines read, and the templates that it is made from.

A format is a list of strings that are put between messages. The templates in ``conversations/``
name tokens by their text; in an artifact they are ids of its tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgec import suggest, yamlfile
from edgec.errors import CheckpointError, UsageError
from edgec.files import digest_json
from edgec.validation.types import Section
from edgec.validation.validate import validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMPLETION = "completion"
SYSTEM_PLACEHOLDER = "{system_message}"
FUNCTION_PLACEHOLDER = "{function_string}"
ALWAYS_SYSTEM = frozenset({"android", "ios"})
"""Platforms whose engine doesn't read ``render_empty_system_message``."""
_ROLES = ("user", "assistant", "tool")
_FOLDER = Path(__file__).resolve().parent / "conversations"
_SUFFIX = ".yaml"


def role_placeholder(role: str) -> str:
    """What stands for the content in the template of a role: ``{user_message}``."""
    return f"{{{role}_message}}"


class Conversation(BaseModel):
    """``conv_template`` of ``mlc-chat-config.json``, with every key that an engine reads.

    A prompt is ``system_prefix_token_ids``, the system text, and for each message its role,
    ``role_content_sep``, its content and a separator: ``seps[1]`` after the assistant's if there
    are two, else ``seps[0]``. It ends with the assistant's role and ``role_empty_sep``.

    Attributes:
        name: of the template.
        system_template: the system text, with ``{system_message}`` in it.
        system_message: the system message unless the user gives another.
        system_prefix_token_ids: tokens before everything else.
        add_role_after_system_message: false if the system text begins the first message, whose
            role is then left out.
        render_empty_system_message: false if there is no system text without a message.
        roles: what stands for each role.
        role_templates: of contents; by default just the placeholder.
        messages: (role, content) pairs in front of every conversation.
        seps: one or two separators.
        role_content_sep: between a role and its content.
        role_empty_sep: after the role of the message that the model is to write.
        stop_str: texts that end an answer.
        stop_token_ids: tokens that end an answer.
        strip_reasoning_in_history: leave thoughts (up to ``</think>``) out of earlier answers.
        function_string: declares functions that the model may call.
        use_function_calling: whether it may.
    """

    # What other builders add is of no use here, and no reason to refuse their artifacts.
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str | None = None
    system_template: str = SYSTEM_PLACEHOLDER
    system_message: str = ""
    system_prefix_token_ids: tuple[int, ...] | None = None
    add_role_after_system_message: bool = True
    render_empty_system_message: bool = True
    roles: dict[str, str]
    role_templates: dict[str, str] = Field(default_factory=dict)
    messages: tuple[tuple[str, str | None], ...] = ()
    seps: tuple[str, ...] = Field(min_length=1, max_length=2)
    role_content_sep: str = ""
    role_empty_sep: str = ""
    stop_str: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    strip_reasoning_in_history: bool = False
    function_string: str = ""
    use_function_calling: bool = False

    def to_json(self) -> dict[str, Any]:
        """The object as JSON values. No key is null: engines take a missing key, but not null."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_chat_config(cls, config: Mapping[str, Any], where: str) -> Conversation:
        """Read the ``conv_template`` of a chat config.

        Args:
            config: content of ``mlc-chat-config.json``.
            where: how messages call that file.

        Raises:
            CheckpointError: it is missing or malformed.
        """
        try:
            return cls.model_validate(config.get("conv_template"))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(("conv_template", *map(str, first["loc"])))
            raise CheckpointError(
                f"{place}: {first['msg'].lower()}", where=where, remedy="build the artifact again"
            ) from error


class Recognize(Section):
    """How a tokenizer's own chat template (Jinja) shows that it means this format."""

    has: tuple[str, ...] = Field((), description="Texts that stand in it.")
    lacks: tuple[str, ...] = Field((), description="Texts that don't.")

    def matches(self, chat_template: str) -> bool:
        """Whether ``chat_template`` fits; nothing fits an empty list."""
        return (
            bool(self.has)
            and all(text in chat_template for text in self.has)
            and not any(text in chat_template for text in self.lacks)
        )


class ConversationTemplate(Section):
    """A file of ``conversations/``: like :class:`Conversation`, with tokens by their text."""

    schema_version: Literal["edgec.conversation/v1"] = Field(alias="schema")
    description: str = ""
    recognize: Recognize = Field(default_factory=Recognize)
    tokens: tuple[str, ...] = Field((), description="Tokens that the format is made of.")
    stop_tokens: tuple[str, ...] = Field((), description="Tokens that end an answer.")
    stop_strings: tuple[str, ...] = ()
    begins_with_bos: bool = Field(
        False, description="Begin with the token that begins text though the Jinja doesn't say so."
    )
    system_template: str = SYSTEM_PLACEHOLDER
    system_message: str = ""
    stand_in_message: str = Field(
        "", description="The system message for engines that write the system text without one."
    )
    add_role_after_system_message: bool = True
    render_empty_system_message: bool = True
    roles: dict[str, str]
    role_templates: dict[str, str] = Field(default_factory=dict)
    seps: tuple[str, ...] = Field(min_length=1, max_length=2)
    role_content_sep: str = ""
    role_empty_sep: str = ""
    strip_reasoning_in_history: bool = False

    def conversation(
        self,
        name: str,
        prefix_ids: Sequence[int],
        stop_ids: Sequence[int],
        *,
        always_system: bool = False,
    ) -> Conversation:
        """The form that engines read.

        Args:
            name: of the template.
            prefix_ids: tokens before everything else.
            stop_ids: tokens that end an answer.
            always_system: whether it is for an engine that writes the system text even if there is
                no message, its markers around nothing.
        """
        stand_in = self.stand_in_message if always_system else ""
        return Conversation(
            name=name,
            system_template=self.system_template,
            system_message=self.system_message or stand_in,
            system_prefix_token_ids=tuple(prefix_ids) or None,
            add_role_after_system_message=self.add_role_after_system_message,
            render_empty_system_message=self.render_empty_system_message,
            roles=self.roles,
            role_templates={role: role_placeholder(role) for role in _ROLES} | self.role_templates,
            seps=self.seps,
            role_content_sep=self.role_content_sep,
            role_empty_sep=self.role_empty_sep,
            stop_str=self.stop_strings,
            stop_token_ids=tuple(stop_ids),
            strip_reasoning_in_history=self.strip_reasoning_in_history,
        )


def list_templates() -> list[str]:
    """The names of the templates, sorted."""
    return sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}"))


def templates_digest() -> str:
    """The sha256 over all templates: data that a built chat config depends on."""
    return digest_json(
        {name: (_FOLDER / f"{name}{_SUFFIX}").read_text("utf-8") for name in list_templates()}
    )


def load_template(name: str) -> ConversationTemplate:
    """The template of this name.

    Raises:
        UsageError: there is none.
    """
    known = list_templates()
    if name not in known:
        raise UsageError(
            f"there is no chat template {name[:80]!r}",
            where="chat.template",
            remedy=suggest.instead_of(name, known, noun="chat templates"),
        )
    file = f"{name}{_SUFFIX}"
    return validate(
        ConversationTemplate, yamlfile.load(_FOLDER / file, name=f"conversations/{file}")
    )
