"""A group whose commands are imported when they are called, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

Section = Mapping[str, str]


class LazyGroup(click.Group):
    """Commands by section, each with its line of help, in modules that aren't loaded yet.

    Args:
        sections: heading to commands; a command's name is that of its module, with its help line.
        package: the package with the modules; each holds a click command called ``command``.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Section], package: str, **more: Any):
        super().__init__(*args, **more)
        self.sections = sections
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the sections."""
        return [name for commands in self.sections.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{self._package}.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command), f"{module.__name__}.command is none"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section; all in one column."""
        width = max(map(len, self.list_commands(ctx)))
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])
