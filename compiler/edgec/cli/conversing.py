"""The dialogue of ``edgec run --chat``: lines in, answers out."""

from __future__ import annotations

import re
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from edgec.cli.output import print_error, say
from edgec.cli.streaming import say_stats, stoppable, stream
from edgec.errors import UsageError

if TYPE_CHECKING:
    from edgec.runtime.chat import Chat

_HELP = "/reset begins a new conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer"
_COMMAND = re.compile(r"/[a-z]+")
_PROMPT = "> "


def converse(chat: Chat, first: str | None = None) -> None:
    """Read messages and answer them until the user has enough.

    Args:
        chat: an empty one.
        first: a message to begin with.
    """
    say(click.style(_HELP, dim=True))
    text = first if first is not None else _read()
    while text is not None:
        command = text.strip()
        if command == "/exit":
            return
        if command == "/reset":
            chat.clear()
            say("this is a new conversation")
        elif _COMMAND.fullmatch(command):
            say(f"there is no command {command}; {_HELP}")
        elif command:
            _answer(chat, text)
        text = _read()


def _answer(chat: Chat, text: str) -> None:
    try:
        steps = chat.answer(text)
    except UsageError as error:
        # Most likely the conversation has outgrown the context; it isn't lost.
        print_error(f"{error}; /reset begins a new conversation")
        return
    with closing(steps), stoppable() as stopped:
        say_stats(stream(steps, stopped))


def _read() -> str | None:
    """One message; None at the end of the input."""
    while True:
        try:
            if sys.stdin.isatty() and sys.stdout.isatty():
                # Gives lines a history and keys to edit them, where Python has it.
                with suppress(ImportError):
                    import readline  # noqa: F401, PLC0415 - acts by being imported
                return input(_PROMPT)
            line = sys.stdin.readline()
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            click.echo()
            say(click.style(_HELP, dim=True))
            continue
        return line.rstrip("\n") if line else None
