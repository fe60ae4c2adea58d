"""What the global options say, for the command that runs."""

from __future__ import annotations

from dataclasses import dataclass

import click


@dataclass
class Settings:
    """State of one call of the command line.

    Attributes:
        quiet: no progress and no summaries on stderr, only errors.
        verbose: print the traceback of errors too.
        as_json: the command was asked for JSON.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False


def settings() -> Settings:
    """The settings of the command that runs; the defaults outside of one."""
    context = click.get_current_context(silent=True)
    found = context.find_object(Settings) if context else None
    return found or Settings()
