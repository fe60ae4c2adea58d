"""A group whose commands are imported when they are called, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from edgec import suggest
from edgec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


class CommandGroup(click.Group):
    """A group that names the close commands when it is asked for one that it doesn't have."""

    def __init__(self, *args: Any, **more: Any) -> None:
        more.setdefault("subcommand_metavar", "COMMAND [ARGS]...")
        super().__init__(*args, **more)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names.

        Raises:
            UsageError: if there is none; the close ones are named.
        """
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            remedy = suggest.instead_of(name, known, noun="commands")
            raise UsageError(f"there is no command {name!r}", remedy=remedy)
        return super().resolve_command(ctx, args)


class LazyGroup(CommandGroup):
    """Commands by section, each with its line of help, in modules that aren't loaded yet.

    Args:
        sections: heading to commands; a command's name is that of its module, with its help line.
        package: the package with the modules; each holds a click command called ``command``.
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, str]], package: str, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.sections = sections
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the sections."""
        return [name for commands in self.sections.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"{self._package}.{cmd_name}").command
        assert isinstance(command, click.Command), f"{cmd_name}: {command!r} is no command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section; all in one column."""
        width = max(map(len, self.list_commands(ctx)))
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])
